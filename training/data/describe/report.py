"""The description of a data set: describe.json, report.md and figures, from one pass over the images."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.data import splits
from training.data.corrupt_files import NOT_AN_IMAGE, CorruptFile
from training.data.datasets import SPLITS, Collection, Split
from training.data.describe import contact_sheet, duplicates, plots
from training.data.describe.scan import Measured, measure
from training.data.describe.text import markdown
from training.data.duplicates import DISTANCE, Pair, near
from training.data.manifest import Manifest
from visionserve.errors import BundleError

FACTS, REPORT = "describe.json", "report.md"
Splits = Mapping[str, Split]


def describe(
    source: str, collection: Collection, folder: Path, seed: int = 1, manifest: Manifest | None = None
) -> dict[str, Any]:
    """Write the description of a collection to ``folder`` and return its figures.

    Args:
        source: the layout's name, for the heading.
        seed: of the stratified split that is looked at.
        manifest: a further split to look at.

    Raises:
        BundleError: none of the images decodes, or one cannot be read.
    """
    images, corrupt = measure(collection)
    if not images:
        raise BundleError(f"{collection.root}: not one of {len(collection.images)} images decodes")
    folder.mkdir(parents=True, exist_ok=True)
    pairs, nearest = near([m.hash for m in images])
    all_splits = _splits(images, pairs, seed, manifest)
    facts = {
        "source": source,
        "root": str(collection.root),
        **_counted(collection, images),
        "splits": {name: _split_facts(split, pairs, images) for name, split in all_splits.items()},
        "duplicates": _duplicates(pairs, images),
        "corrupt": [{"path": file.path, "reason": file.reason} for file in (*corrupt, *_others(collection))],
    }
    plots.labels(facts["labels"], folder / "labels.png")
    plots.sizes(images, folder / "sizes.png")
    plots.alike(nearest, DISTANCE, folder / "alike.png")
    contact_sheet.samples(collection.root, images, collection.labels, folder / "samples.jpg")
    if pairs:
        contact_sheet.pairs(collection.root, pairs, images, folder / "duplicates.jpg")
    (folder / FACTS).write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / REPORT).write_text(markdown(facts), encoding="utf-8")
    return facts


def _counted(collection: Collection, images: Sequence[Measured]) -> dict[str, Any]:
    counts = Counter(m.image.label for m in images)
    per_label = {label: counts[label] for label in collection.labels}
    most, least = max(per_label.values()), min(per_label.values())
    return {
        "images": len(images),
        "bytes": sum(m.size for m in images),
        "balance": {
            "labels": len(per_label),
            **_spread(list(per_label.values())),
            "most_to_least": round(most / least, 2) if least else None,
        },
        "labels": per_label,
        "sizes": {
            "width": _spread([m.width for m in images]),
            "height": _spread([m.height for m in images]),
            "shorter_side": _spread([min(m.width, m.height) for m in images]),
            "width_to_height": _spread([m.width / m.height for m in images]),
        },
        "formats": dict(Counter(m.format for m in images).most_common()),
        "colours": dict(Counter(m.mode for m in images).most_common()),
        "turned_by_exif": sum(m.turned for m in images),
    }


def _splits(
    images: Sequence[Measured], pairs: Sequence[Pair], seed: int, manifest: Manifest | None
) -> dict[str, Splits]:
    """Return every split there is: the source's own, the stratified one, one that was given."""
    plain = [m.image for m in images]
    by_name: dict[str, Splits] = {}
    official: dict[str, Split] = {p.path: p.split for p in plain if p.split is not None}
    if official:
        by_name["official"] = official
    try:
        digests = {m.image.path: m.sha256 for m in images}
        alike = [(plain[pair.one].path, plain[pair.other].path) for pair in pairs]
        by_name[f"stratified, seed {seed}"] = splits.stratified(plain, digests, seed, alike)
    except BundleError:
        pass  # too few of a label to divide: the report says how many there are
    if manifest is not None:
        by_name["manifest"] = {row.path: row.split for row in manifest.rows}
    return by_name


def _split_facts(split: Splits, pairs: Sequence[Pair], images: Sequence[Measured]) -> dict[str, Any]:
    counts = Counter(split.values())
    across = duplicates.crossing(pairs, images, split)
    return {
        "images": {split: counts[split] for split in SPLITS},
        "same_files_across": sum(_same(pair, images) for pair in across),
        "duplicates_across": len(across),
        "validated_with_a_duplicate_in_training": duplicates.leaked(pairs, images, split, "val"),
        "tested_with_a_duplicate_in_training": duplicates.leaked(pairs, images, split, "test"),
    }


def _duplicates(pairs: Sequence[Pair], images: Sequence[Measured]) -> dict[str, Any]:
    return {
        "distance": DISTANCE,
        "same_files": [[images[index].image.path for index in group] for group in duplicates.exact(images)],
        "pairs": [
            {
                "paths": [images[index].image.path for index in (pair.one, pair.other)],
                "labels": [images[index].image.label for index in (pair.one, pair.other)],
                "distance": pair.distance,
                "same_file": _same(pair, images),
            }
            for pair in pairs
        ],
    }


def _same(pair: Pair, images: Sequence[Measured]) -> bool:
    return images[pair.one].sha256 == images[pair.other].sha256


def _others(collection: Collection) -> list[CorruptFile]:
    return [CorruptFile(path, NOT_AN_IMAGE) for path in collection.others]


def _spread(values: Sequence[float]) -> dict[str, float]:
    spread = {"least": min(values), "median": float(np.median(values)), "most": max(values)}
    return {name: round(value, 3) for name, value in spread.items()}
