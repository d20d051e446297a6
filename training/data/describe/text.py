"""The figures of a description as Markdown for people."""

from typing import Any

from training.markdown import counted, table

MOST_LISTED = 50  # files in a list; describe.json has all of them
_LEAKS = ("validated_with_a_duplicate_in_training", "tested_with_a_duplicate_in_training")


def markdown(facts: dict[str, Any]) -> str:
    """Return the report; its figures lie beside it."""
    parts = [_head(facts), _labels(facts), _sizes(facts), _duplicates(facts), _corrupt(facts["corrupt"])]
    samples = "## Samples\n\nChosen at random, the same ones every time.\n\n![Samples of every label](samples.jpg)"
    return "\n\n".join([*parts, samples]) + "\n"


def _head(facts: dict[str, Any]) -> str:
    lost = len(facts["corrupt"])
    return (
        f"# {facts['source']}: {counted(facts['images'], 'image')} of "
        f"{counted(facts['balance']['labels'], 'label')}\n\n"
        f"In `{facts['root']}`: {facts['bytes'] / 1e6:,.0f} MB, "
        f"{counted(lost, 'file') if lost else 'no files'} that cannot be used."
    )


def _labels(facts: dict[str, Any]) -> str:
    balance, ratio = facts["balance"], facts["balance"]["most_to_least"]
    share = f"the most frequent label has {ratio:g} times as many as the rarest" if ratio else "some label has none"
    return (
        f"## Labels\n\nImages of a label: {balance['least']} at least, {balance['median']:g} in the middle, "
        f"{balance['most']} at most; {share}.\n\n![Images of each label](labels.png)"
    )


def _sizes(facts: dict[str, Any]) -> str:
    rows = [
        [name.replace("_", " "), *(f"{spread[part]:g}" for part in ("least", "median", "most"))]
        for name, spread in facts["sizes"].items()
    ]
    kinds = [
        f"{title}: {', '.join(f'{name} {_number(count)}' for name, count in facts[key].items())}"
        for title, key in (("File formats", "formats"), ("colours as stored", "colours"))
    ]
    return "\n\n".join(
        [
            "## Sizes and files",
            "Pixels, upright:",
            _lines(["", "least", "median", "most"], rows),
            f"{'; '.join(kinds)}; turned by their EXIF block: {facts['turned_by_exif']}.",
            "![Sizes, shorter sides and shapes](sizes.png)",
        ]
    )


def _duplicates(facts: dict[str, Any]) -> str:
    duplicates, pairs = facts["duplicates"], facts["duplicates"]["pairs"]
    parts = [
        "## Duplicates",
        f"Files that are there more than once, byte for byte: {len(duplicates['same_files'])}. Pairs that look the "
        f"same, those included: {len(pairs)}; at most {duplicates['distance']} of the 256 bits of their perceptual "
        "hashes differ. "
        "That finds copies at another size, quality or brightness, and many shots of one scene taken a moment apart; "
        "it does not find what was cropped far, mirrored, or taken from another side.",
        "![How alike the most alike images are](alike.png)",
        _splits(facts["splits"]),
        _two_labels(pairs),
    ]
    if pairs:
        parts += [_listed(pairs), "![The pairs, nearest first, with their distances](duplicates.jpg)"]
    return "\n\n".join(part for part in parts if part)


def _splits(splits: dict[str, Any]) -> str:
    rows = [
        [
            name,
            *(_number(count) for count in of["images"].values()),
            *(str(of[name]) for name in ("same_files_across", "duplicates_across", *_LEAKS)),
        ]
        for name, of in splits.items()
    ]
    titles = [
        "split",
        "train",
        "val",
        "test",
        "same files across",
        "duplicates across",
        *(n.replace("_", " ") for n in _LEAKS),
    ]
    return _lines(titles, rows) if rows else "There are too few images of a label to split them."


def _two_labels(pairs: list[dict[str, Any]]) -> str:
    lines = [
        f"- `{a}` ({pair['labels'][0]}) and `{b}` ({pair['labels'][1]}), {pair['distance']} bits apart"
        for pair in pairs
        if pair["labels"][0] != pair["labels"][1]
        for a, b in [pair["paths"]]
    ]
    return "\n".join(["Duplicates under two labels, of which one may be wrong:", "", *lines]) if lines else ""


def _listed(pairs: list[dict[str, Any]]) -> str:
    rows = [
        ["0, same file" if pair["same_file"] else str(pair["distance"]), *(f"`{path}`" for path in pair["paths"])]
        for pair in pairs[:MOST_LISTED]
    ]
    return _lines(["bits", "image", "its duplicate"], rows)


def _corrupt(files: list[dict[str, str]]) -> str:
    if not files:
        return "## Corrupt files\n\nNone: every image decodes as the service would decode it."
    rows = [[f"`{file['path']}`", file["reason"]] for file in files[:MOST_LISTED]]
    more = f"\n\n{len(files) - MOST_LISTED} more are in describe.json." if len(files) > MOST_LISTED else ""
    return (
        "## Corrupt files\n\nA run stops at the first that does not decode, or leaves all of them out with "
        "`--data.corrupt skip`. Files whose names are not those of images are never read.\n\n"
        f"{_lines(['file', 'what is wrong'], rows)}{more}"
    )


def _lines(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(table(head, rows, text_columns=len(head)))


def _number(count: int) -> str:
    return f"{count:,}"
