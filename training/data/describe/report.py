"""The description of a data set: describe.json, report.md and pictures, from one pass over the photographs."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from training.data import splits
from training.data.corrupt_files import NO_PHOTOGRAPH, Broken
from training.data.datasets import SPLITS, Collection, Split
from training.data.describe import contact_sheet, duplicates, plots
from training.data.describe.duplicates import DISTANCE, Pair
from training.data.describe.scan import Measured, measure
from training.data.describe.text import markdown
from training.data.manifest import Manifest
from visionserve.errors import BundleError

FACTS, REPORT = "describe.json", "report.md"
Division = Mapping[str, Split]


def describe(
    source: str, collection: Collection, folder: Path, seed: int = 1, given: Manifest | None = None
) -> dict[str, Any]:
    """Write the description of a collection to ``folder`` and return its figures.

    Args:
        source: the layout's name, for the heading.
        seed: of the stratified division that is looked at.
        given: a further division to look at.

    Raises:
        BundleError: none of the photographs decodes, or one cannot be read.
    """
    photographs, broken = measure(collection)
    if not photographs:
        raise BundleError(f"{collection.root}: not one of {len(collection.photographs)} photographs decodes")
    folder.mkdir(parents=True, exist_ok=True)
    found, nearest = duplicates.near(photographs)
    divisions = _divisions(photographs, seed, given)
    facts = {
        "source": source,
        "root": str(collection.root),
        **_counted(collection, photographs),
        "divisions": {name: _division(division, found, photographs) for name, division in divisions.items()},
        "twins": _twins(found, photographs),
        "broken": [{"path": file.path, "reason": file.reason} for file in (*broken, *_others(collection))],
    }
    plots.labels(facts["labels"], folder / "labels.png")
    plots.sizes(photographs, folder / "sizes.png")
    plots.alike(nearest, DISTANCE, folder / "alike.png")
    contact_sheet.samples(collection.root, photographs, collection.labels, folder / "samples.jpg")
    if found:
        contact_sheet.pairs(collection.root, found, photographs, folder / "twins.jpg")
    (folder / FACTS).write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / REPORT).write_text(markdown(facts), encoding="utf-8")
    return facts


def _counted(collection: Collection, photographs: Sequence[Measured]) -> dict[str, Any]:
    counts = Counter(m.photograph.label for m in photographs)
    per_label = {label: counts[label] for label in collection.labels}
    most, least = max(per_label.values()), min(per_label.values())
    return {
        "photographs": len(photographs),
        "bytes": sum(m.size for m in photographs),
        "balance": {
            "labels": len(per_label),
            **_spread(list(per_label.values())),
            "most_to_least": round(most / least, 2) if least else None,
        },
        "labels": per_label,
        "sizes": {
            "width": _spread([m.width for m in photographs]),
            "height": _spread([m.height for m in photographs]),
            "shorter_side": _spread([min(m.width, m.height) for m in photographs]),
            "width_to_height": _spread([m.width / m.height for m in photographs]),
        },
        "formats": dict(Counter(m.format for m in photographs).most_common()),
        "colours": dict(Counter(m.mode for m in photographs).most_common()),
        "turned_by_exif": sum(m.turned for m in photographs),
    }


def _divisions(photographs: Sequence[Measured], seed: int, given: Manifest | None) -> dict[str, Division]:
    """Return every division there is: the source's own, the stratified one, one that was given."""
    plain = [m.photograph for m in photographs]
    found: dict[str, Division] = {}
    official: dict[str, Split] = {p.path: p.split for p in plain if p.split is not None}
    if official:
        found["official"] = official
    try:
        digests = {m.photograph.path: m.sha256 for m in photographs}
        found[f"stratified, seed {seed}"] = splits.stratified(plain, digests, seed)
    except BundleError:
        pass  # too few of a label to divide: the report says how many there are
    if given is not None:
        found["manifest"] = {row.path: row.split for row in given.rows}
    return found


def _division(division: Division, found: Sequence[Pair], photographs: Sequence[Measured]) -> dict[str, Any]:
    counts = Counter(division.values())
    across = duplicates.crossing(found, photographs, division)
    return {
        "photographs": {split: counts[split] for split in SPLITS},
        "same_files_across": sum(_same(pair, photographs) for pair in across),
        "twins_across": len(across),
        "validated_with_a_twin_in_training": duplicates.leaked(found, photographs, division, "val"),
        "tested_with_a_twin_in_training": duplicates.leaked(found, photographs, division, "test"),
    }


def _twins(found: Sequence[Pair], photographs: Sequence[Measured]) -> dict[str, Any]:
    return {
        "distance": DISTANCE,
        "same_files": [
            [photographs[place].photograph.path for place in group] for group in duplicates.exact(photographs)
        ],
        "pairs": [
            {
                "paths": [photographs[place].photograph.path for place in (pair.one, pair.other)],
                "labels": [photographs[place].photograph.label for place in (pair.one, pair.other)],
                "distance": pair.distance,
                "same_file": _same(pair, photographs),
            }
            for pair in found
        ],
    }


def _same(pair: Pair, photographs: Sequence[Measured]) -> bool:
    return photographs[pair.one].sha256 == photographs[pair.other].sha256


def _others(collection: Collection) -> list[Broken]:
    return [Broken(path, NO_PHOTOGRAPH) for path in collection.others]


def _spread(values: Sequence[float]) -> dict[str, float]:
    found = {"least": min(values), "median": float(np.median(values)), "most": max(values)}
    return {name: round(value, 3) for name, value in found.items()}
