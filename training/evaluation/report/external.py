"""Images of other origin than the test split: sources that were held out whole, or any labelled images.

Each set has a row beside the test split's: the laboratory and the real world. Several labels may count as right, where
the set says so.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from training.data.datasets import collect
from training.data.datasets.labels_csv import find as find_csv
from training.data.manifest import Manifest, Row, hash_file, seen_among
from training.evaluation.calibration import by_confidence, confidence_error, debiased_error, probabilities
from training.evaluation.evaluate import EvaluationData, Predictions, predict, prepare
from training.evaluation.evaluate import collect as collect_data
from training.evaluation.intervals import design_effect, share
from training.evaluation.metrics import rounded
from training.evaluation.report.novelty import KEPT
from training.evaluation.report.sections import Section
from training.markdown import counted, interval, percent, table
from training.recipe import LabelsCsv
from visionserve.errors import BundleError
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard

KEY = "external"


@dataclass(frozen=True)
class Labelled:
    """A set of N images: which labels count as right for each, as indices, and what it comes from, if that is known."""

    name: str
    files: tuple[Path, ...]
    accepted: tuple[frozenset[int], ...]
    groups: tuple[str, ...]
    held_out: bool = False  # of a source of the training data: none of these groups was trained on
    left_out: str = ""  # a sentence on images of labels that the model does not have

    @classmethod
    def of_manifest(cls, name: str, manifest: Manifest) -> "Labelled":
        """Return the test images of a further source."""
        accepted, rows = manifest.accepted(), [manifest.rows[index] for index in manifest.part("test")]
        files = tuple(manifest.root / row.path for row in rows)
        right = tuple(accepted[index] for index in manifest.part("test"))
        return cls(name, files, right, tuple(row.group for row in rows), held_out=True)


def read(name: str, path: Path, labels: tuple[str, ...], csv: LabelsCsv | None = None) -> Labelled:
    """Return the images of a folder of class folders, of a folder with a labels.csv, or of a CSV file.

    Raises:
        BundleError: nothing there can be used, or shows a label of the model.
    """
    settings = find_csv(path, csv)
    if settings is not None:
        root = path if path.is_dir() else path.parent
        collection = collect("labels-csv", root, csv=settings, labels=labels, others=True)
    else:
        collection = collect("imagefolder", path)
    index = {label: position for position, label in enumerate(labels)}
    known = [image for image in collection.images if image.label in index]
    if not known:
        raise BundleError(
            f"{path}: no image shows a label of the model; --shifted DIR --names CSV gives folders labels"
        )
    files = tuple(collection.root / image.path for image in known)
    accepted = tuple(
        frozenset(index[label] for label in (image.label, *image.accept) if label in index) for image in known
    )
    left_out = _left_out(name, [image.label for image in collection.images if image.label not in index])
    return Labelled(name, files, accepted, tuple(image.group for image in known), left_out=left_out)


def _left_out(name: str, unknown: Sequence[str]) -> str:
    """Return a sentence on the images whose labels the model does not have, one of ``unknown`` for each."""
    if not unknown:
        return ""
    labels = sorted(set(unknown))
    some = ", ".join(labels[:3]) + (", ..." if len(labels) > 3 else "")
    return f"Left out of {name}: {counted(len(unknown), 'image')} of labels that the model does not have ({some})."


def _seen(bundle: Path, sets: Sequence[Labelled]) -> Iterator[str]:
    """Yield a warning for each set with images that the model was trained or chosen on."""
    for entry in sets:
        if count := seen_among(bundle, entry.files):
            yield (
                f"**{count} of the {len(entry.files)} images of {entry.name} are among those that the model was "
                "trained or chosen on: of others it recognises fewer.**"
            )


def evaluate(bundle: Path, entry: Labelled) -> EvaluationData:
    """Run a bundle on a set of images alone; of several right labels the predicted one counts as the true one."""
    labels = ModelCard.load(bundle / CARD).labels
    root = Path(os.path.commonpath([file.parent for file in entry.files]))
    rows = tuple(
        Row(file.relative_to(root).as_posix(), labels[min(right)], "test", hash_file(file), group=group)
        for file, right, group in zip(entry.files, entry.accepted, entry.groups, strict=True)
    )
    data = collect_data(bundle, Manifest(root, labels, rows))
    predicted = data.predictions.logits.argmax(1).tolist()
    pairs = zip(predicted, entry.accepted, strict=True)
    return replace(data, targets=np.array([label if label in right else min(right) for label, right in pairs]))


def section(data: EvaluationData, sets: Sequence[Labelled]) -> Section:
    """Measure every set beside the images of the split."""
    own = Labelled(data.split, data.files, tuple(frozenset([int(t)]) for t in data.targets), ("",) * len(data.files))
    rows: dict[str, dict[str, Any]] = {data.split: measure(own, data.predictions, data.card.temperature)}
    for entry in sets:
        predictions = predict(data.classifier, prepare(entry.files, data.classifier.preprocessing), entry.files)
        rows[entry.name] = measure(entry, predictions, data.card.temperature)
    figures = {name: row for name, row in rows.items() if name != data.split}
    headline = {KEY: {name: {key: row[key] for key in _HEADLINE if key in row} for name, row in figures.items()}}
    return Section("Images of other origin", _lines(data, rows, sets), figures, KEY, headline=headline)


_HEADLINE = (
    "photographs",
    "groups",
    "top1",
    "top1_interval",
    "top5",
    "mean_confidence",
    "calibration_error",
    "calibration_error_debiased",
    "calibration_error_debiased_interval",
)


def measure(entry: Labelled, predictions: Predictions, temperature: float) -> dict[str, Any]:
    """Return the metrics of a set; with groups, intervals are those of other groups: the images of one are alike."""
    probability = probabilities(predictions.logits, temperature)
    confidence, order = probability.max(1), np.argsort(-predictions.logits, axis=1, kind="stable")
    hits = [
        [label in right for label in labels]
        for labels, right in zip(order[:, :5].tolist(), entry.accepted, strict=True)
    ]
    right = np.array([row[0] for row in hits])
    groups = entry.groups if all(entry.groups) else ()
    debiased, low, high = debiased_error(confidence, right, effect=design_effect(right - confidence, groups))
    row: dict[str, Any] = {
        "photographs": len(right),
        "top1": rounded(right.mean()),
        "top1_interval": [rounded(bound) for bound in share(right, groups)],
        "top5": rounded(np.mean([any(row) for row in hits])),
        "mean_confidence": rounded(confidence.mean()),
        "calibration_error": rounded(confidence_error(by_confidence(confidence, right))),
        "calibration_error_debiased": rounded(debiased),
        "calibration_error_debiased_interval": [rounded(low), rounded(high)],
        "novelty_mean": rounded(predictions.novelty.mean()),
        "novel": rounded((predictions.novelty > KEPT).mean()),
    }
    return row | ({"groups": len(set(groups))} if groups else {})


def _lines(data: EvaluationData, rows: Mapping[str, Mapping[str, Any]], sets: Sequence[Labelled]) -> list[str]:
    held_out = [entry.name for entry in sets if entry.held_out]
    lines = ["The same network, temperature and input on images that others took."]
    if held_out:
        lines[0] += (
            f" Of {', '.join(held_out)}, other groups (websites, cameras) were trained on; those measured here were "
            "not."
        )
    head = [
        "images",
        "",
        "groups",
        "top-1 (95 % interval)",
        "top-5",
        "mean confidence",
        "calibration error",
        "without its bias",
    ]
    cells = [
        (
            f"the {data.split} images" if name == data.split else name,
            row["photographs"],
            row.get("groups", "-"),
            f"{percent(row['top1'])} ({interval(row['top1_interval'])})",
            percent(row["top5"]),
            percent(row["mean_confidence"]),
            percent(row["calibration_error"]),
            f"{percent(row['calibration_error_debiased'])} ({interval(row['calibration_error_debiased_interval'])})",
            percent(row["novel"]),
        )
        for name, row in rows.items()
    ]
    left_out = [entry.left_out for entry in sets if entry.left_out]
    return [*lines, *left_out, *_seen(data.bundle, sets), "", *table([*head, f"novelty above {KEPT}"], cells)]
