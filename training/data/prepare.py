"""From a recipe's `data` to a manifest: index, check and split the images, or read a manifest written before."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from training.data import corrupt_files
from training.data import manifest as manifests
from training.data.corrupt_files import CorruptFile
from training.data.datasets import SPLITS, Collection, ImageFile, collect
from training.data.duplicates import Hash, near
from training.data.manifest import Manifest, Row, hash_file
from training.markdown import counted
from training.recipe import Data, Recipe, Shares, Source
from visionserve.errors import BundleError

COPY = "a copy of it is in the validation or test split"
COPY_ELSEWHERE = "a copy of it is in another split of an earlier source"
MOST_COMPARED = 50_000  # images compared in pairs: a minute
_log = logging.getLogger(__name__)


def make(data: Data, memory: Path | None = None) -> tuple[Manifest, tuple[CorruptFile, ...]]:
    """Return the manifest and the files that were left out.

    Args:
        memory: folder that remembers which images decode; None tries all of them.

    Raises:
        BundleError: the folder cannot be used, images are corrupt and the recipe does not skip them, or the given
            manifest is not that of these images.
    """
    collection = collect(data.source, Path(data.root) if data.root is not None else None, csv=data.csv)
    if data.manifest is not None:
        return given(Path(data.manifest), collection), ()
    _say_unused_split(data, collection)
    digests = manifests.digests(collection)
    scan = corrupt_files.scan(collection, digests, memory)
    if data.corrupt == "error":
        corrupt_files.refuse_any(collection, scan.corrupt)
    usable = corrupt_files.without(collection, scan.corrupt)
    manifest = manifests.build(usable, data.split, data.seed, digests, alike(scan.hashes), data.shares)
    used = {row.path for row in manifest.rows}
    copies = [CorruptFile(image.path, COPY) for image in usable.images if image.path not in used]
    others = [CorruptFile(path, corrupt_files.reason_of_name(path)) for path in collection.others]
    return manifest, (*scan.corrupt, *copies, *others)


def _say_unused_split(data: Data, collection: Collection) -> None:
    """Warn of folders or a column for splits that a division of one's own ignores."""
    if data.split not in ("stratified", "by-group") or data.source not in ("imagefolder", "labels-csv"):
        return
    counts = Counter(image.split for image in collection.images if image.split is not None)
    if counts:
        usual = "given" if counts["val"] and counts["test"] else "given-test" if counts["test"] else ""
        _log.warning(
            "%s has a split of its own (%s), which --data.split %s does not use: its images are divided anew%s",
            collection.root,
            ", ".join(f"{split} {counts[split]}" for split in SPLITS if counts[split]),
            data.split,
            f". --data.split {usual} keeps it" if usual else "",
        )


def make_further(
    data: Data, first: Manifest, memory: Path | None = None
) -> list[tuple[Source, Manifest, tuple[CorruptFile, ...]]]:
    """Return each source of ``data.more`` with its manifest and the files of it that are left out.

    An image of which a copy, or one that looks the same, is in another split of the first or of an earlier source is
    left out: nothing that is measured on is trained on.

    Raises:
        BundleError: as `make`; or a label is none of the first source's.
    """
    if not data.more:
        return []
    result: list[tuple[Source, Manifest, tuple[CorruptFile, ...]]] = []
    earlier = [first]
    for source in data.more:
        manifest, left_out = _further(source, folder_of(data, source), first.labels, data.corrupt, memory)
        if source.manifest is None:
            copies = _copies_elsewhere(manifest, earlier, memory)
            manifest = replace(manifest, rows=tuple(row for row in manifest.rows if row.path not in copies))
            left_out = (*left_out, *(CorruptFile(path, COPY_ELSEWHERE) for path in sorted(copies)))
        result.append((source, manifest, left_out))
        earlier.append(manifest)
    return result


def folder_of(data: Data, source: Source) -> Path:
    """Return the folder of a further source; a BundleError if the recipe does not say where it is."""
    folder = data.roots.get(source.name, source.root)
    if folder is None:
        raise BundleError(f"the recipe learns from {source.name} too: say where it is with --data.roots.{source.name}")
    return Path(folder)


def _further(
    source: Source, root: Path, labels: tuple[str, ...], corrupt: str, memory: Path | None
) -> tuple[Manifest, tuple[CorruptFile, ...]]:
    collection = collect(source.source, root, csv=source.csv, labels=labels)
    unknown = [label for label in collection.labels if label not in labels]
    if unknown:
        raise BundleError(f"{root} has the label {unknown[0]!r}, which the first source does not have")
    if source.manifest is not None:
        manifest = manifests.load(Path(source.manifest), collection.root, labels)
        manifest.verify()
        return manifest, ()
    digests = manifests.digests(collection)
    scan = corrupt_files.scan(collection, digests, memory)
    if corrupt == "error":
        corrupt_files.refuse_any(collection, scan.corrupt)
    unusable = {file.path for file in scan.corrupt}
    usable = replace(
        collection,
        images=tuple(image for image in collection.images if image.path not in unusable),
        labels=tuple({image.label: 0 for image in collection.images if image.path not in unusable}),
    )
    shares = Shares(source.held_out, source.held_out)
    manifest = manifests.build(usable, source.split, source.seed, digests, alike(scan.hashes), shares)
    used = {row.path for row in manifest.rows}
    copies = [CorruptFile(image.path, COPY) for image in usable.images if image.path not in used]
    others = [CorruptFile(path, corrupt_files.reason_of_name(path)) for path in collection.others]
    return replace(manifest, labels=labels), (*scan.corrupt, *copies, *others)


def _copies_elsewhere(manifest: Manifest, earlier: Sequence[Manifest], memory: Path | None) -> set[str]:
    """Return the paths of images that are, or look like one, in another split of an earlier source."""
    everything = manifests.joined([*earlier, manifest])
    by_path = {row.path: row for row in everything.rows}
    mine = {row.path: own.path for row, own in zip(everything.rows[-len(manifest.rows) :], manifest.rows, strict=True)}
    images = tuple(ImageFile(row.path, row.label) for row in everything.rows)
    digests = {row.path: row.sha256 for row in everything.rows}
    scan = corrupt_files.scan(Collection(everything.root, (), images), digests, memory)
    by_digest: dict[str, list[str]] = {}
    for path, digest in digests.items():
        by_digest.setdefault(digest, []).append(path)
    same = [(paths[0], other) for paths in by_digest.values() for other in paths[1:]]
    copies = set()
    for pair in (*same, *alike(scan.hashes)):
        for one, other in (pair, pair[::-1]):
            if one in mine and other not in mine and by_path[one].split != by_path[other].split:
                copies.add(mine[one])
    return copies


def summary(
    manifest: Manifest, left_out: Sequence[CorruptFile], every_label: bool = False, labels: bool = True
) -> list[str]:
    """Return lines on what was read: images of each split, and files that were left out, with the reasons.

    Labels have a line each where something of theirs was left out, or if ``every_label``; none without ``labels``.
    """
    counts = ", ".join(f"{split} {len(manifest.part(split))}" for split in SPLITS)
    shown = len({row.label for row in manifest.rows})
    lines = [f"{counted(len(manifest.rows), 'image')} of {counted(shown, 'label')} in {manifest.root}: {counts}"]
    groups = {split: {row.group for row in manifest.rows if row.split == split and row.group} for split in SPLITS}
    if any(groups.values()):
        lines.append("groups: " + ", ".join(f"{split} {len(names)}" for split, names in groups.items()))
    lines += [f"left out {counted(len(left_out), 'file')}: {_reasons(left_out)}"] if left_out else []
    lines += _doubtful(manifest)
    if not labels:
        return lines
    folders = {PurePosixPath(row.path).parent.as_posix(): row.label for row in manifest.rows}
    by_label: dict[str, list[CorruptFile]] = {label: [] for label in manifest.labels}
    for file in left_out:
        label = next((folders[f.as_posix()] for f in PurePosixPath(file.path).parents if f.as_posix() in folders), None)
        if label is not None:
            by_label[label].append(file)
    for label, files in by_label.items():
        if files or every_label:
            splits = Counter(row.split for row in manifest.rows if row.label == label)
            split_counts = ", ".join(f"{split} {splits[split]}" for split in SPLITS)
            lines.append(
                f"  {label}: {split_counts}" + (f"; left out {len(files)}: {_reasons(files)}" if files else "")
            )
    return lines


def _doubtful(manifest: Manifest) -> list[str]:
    """Return lines on labels that differ in case only, and on identical files under several labels."""
    lines = []
    by_name: dict[str, list[str]] = {}
    for label in manifest.labels:
        by_name.setdefault(label.casefold(), []).append(label)
    lines += [
        f"{' and '.join(map(repr, labels))} differ in case only and are learnt as {len(labels)} labels: merge them if "
        "they are one"
        for labels in by_name.values()
        if len(labels) > 1
    ]
    by_digest: dict[str, dict[str, str]] = {}
    for row in manifest.rows:
        by_digest.setdefault(row.sha256, {}).setdefault(row.label, row.path)
    several = [paths for paths in by_digest.values() if len(paths) > 1]
    if several:
        example = " and ".join(f"{path} ({label})" for label, path in several[0].items())
        lines.append(
            f"the same image under several labels, {counted(len(several), 'image')}: {example}. Remove the wrong one"
        )
    return lines


def _reasons(files: Sequence[CorruptFile]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in Counter(file.reason for file in files).most_common())


def alike(hashes: Mapping[str, Hash]) -> list[tuple[str, str]]:
    """Return the pairs of paths of images that look the same, the nearest first; none, with a warning, of too many."""
    if len(hashes) > MOST_COMPARED:
        _log.warning(
            "images that look the same are not searched for among %d images (more than %d): only identical files are "
            "kept on one side",
            *(len(hashes), MOST_COMPARED),
        )
        return []
    paths = list(hashes)
    pairs, _ = near(list(hashes.values()))
    return [(paths[pair.one], paths[pair.other]) for pair in pairs]


def given(path: Path, collection: Collection) -> Manifest:
    """Read a manifest and compare it with the disk; its labels keep the order that the source gives them."""
    read = manifests.load(path, collection.root, collection.labels)
    used = {row.label for row in read.rows}
    missing = set(SPLITS) - {row.split for row in read.rows}
    if missing:
        raise BundleError(f"{path} has no {' and no '.join(sorted(missing))} images")
    manifest = replace(read, labels=tuple(label for label in collection.labels if label in used))
    manifest.verify()
    return manifest


def handful(recipe: Recipe) -> Manifest:
    """Return a batch to learn from and as many to validate on, from all over the source, with all of its labels.

    Splits are not those of a run: nothing of a rehearsal is kept.
    """
    root = Path(recipe.data.root) if recipe.data.root is not None else None
    collection = collect(recipe.data.source, root, csv=recipe.data.csv)
    images = collection.images
    if len(images) < 2:
        raise BundleError(f"{collection.root} has too few images to learn from some and validate on others")
    count = min(2 * recipe.batch_size, len(images))
    sample = [images[index * len(images) // count] for index in range(count)]
    rows = (
        Row(p.path, p.label, "val" if index % 2 else "train", hash_file(collection.root / p.path))
        for index, p in enumerate(sample)
    )
    return Manifest(collection.root, collection.labels, tuple(rows))
