"""How accurate the model is on images of its labels from other sources.

A folder of class folders, and a CSV file `folder,label` that says which label of the model each folder shows. A folder
without one, or with an empty label, shows something unknown to the model: only its novelty is measured.
"""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from training.evaluation import metrics
from training.evaluation.calibration import probabilities
from training.evaluation.evaluate import EvaluationData, Predictions, predict, prepare
from training.evaluation.intervals import wilson
from training.evaluation.metrics import rounded
from training.evaluation.report.novelty import KEPT, some_images_below
from training.evaluation.report.sections import Section
from training.markdown import interval, percent, table
from visionserve.errors import BundleError

HEADER = ["folder", "label"]


def section(data: EvaluationData, root: Path, names: Path | None) -> Section:
    """Measure each class folder below ``root``; without ``names`` a folder's name is its label.

    Raises:
        BundleError: the folder or the names cannot be used.
    """
    folders = _folders(root)
    label_of = read_names(names, folders, data.card.labels) if names is not None else _own(folders, data)
    rows = []
    for folder in folders:
        images = prepare(some_images_below(root / folder), data.classifier.preprocessing)
        rows.append(_row(folder, label_of.get(folder), predict(data.classifier, images), data))
    labelled = [row for row in rows if row["label"] is not None]
    figures = {"all": _all(labelled), "folders": rows}
    return Section("Other images of the same labels", _lines(figures, data), figures, "shifted")


def read_names(path: Path, folders: Iterable[str], labels: tuple[str, ...]) -> dict[str, str]:
    """Return the label of each folder that shows one.

    Raises:
        BundleError: the file cannot be read, or has a line that names no folder, no label or a folder twice.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = [line for line in csv.reader(file) if line]
    except (OSError, ValueError) as error:
        raise BundleError(f"no readable names at {path}: {error}") from error
    if not lines or lines[0] != HEADER or any(len(line) != len(HEADER) for line in lines):
        raise BundleError(f"{path} must have the two columns {','.join(HEADER)}, named in its first line")
    label_by_folder: dict[str, str] = {}
    for folder, label in lines[1:]:
        if folder not in folders:
            raise BundleError(f"{path} names the folder {folder!r}, which does not exist")
        if folder in label_by_folder:
            raise BundleError(f"{path} names the folder {folder!r} twice")
        if label and label not in labels:
            raise BundleError(f"{path}: {label!r}, of the folder {folder!r}, is not a label of the model")
        label_by_folder[folder] = label
    labelled = {folder: label for folder, label in label_by_folder.items() if label}
    if not labelled:
        raise BundleError(f"{path} gives no folder a label")
    return labelled


def _folders(root: Path) -> list[str]:
    if not root.is_dir():
        raise BundleError(f"folder {root} does not exist")
    folders = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise BundleError(f"{root} has no class folders")
    return folders


def _own(folders: list[str], data: EvaluationData) -> dict[str, str]:
    matching = {folder: folder for folder in folders if folder in data.card.labels}
    if not matching:
        raise BundleError(
            "no class folder is named like a label of the model: give the labels of the folders with --names"
        )
    return matching


def _row(folder: str, label: str | None, predictions: Predictions, data: EvaluationData) -> dict[str, Any]:
    row: dict[str, Any] = {
        "folder": folder,
        "label": label,
        "photographs": len(predictions.novelty),
        "probability_mean": rounded(probabilities(predictions.logits, data.card.temperature).max(1).mean()),
        "novel": rounded((predictions.novelty > KEPT).mean()),
    }
    if label is None:
        return row
    targets = np.full(len(predictions.novelty), data.card.labels.index(label))
    right, in_five = (int(metrics.among_best(predictions.logits, targets, k).sum()) for k in (1, 5))
    return row | {"right": right, "in_five": in_five} | _top1(row, right)


def _top1(row: Mapping[str, Any], right: int) -> dict[str, Any]:
    bounds = wilson(right, row["photographs"])
    return {"top1": rounded(right / row["photographs"]), "top1_interval": [rounded(bound) for bound in bounds]}


def _all(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the metrics of all images that show a label."""
    sums = {name: sum(row[name] for row in rows) for name in ("photographs", "right", "in_five")}
    means = {
        name: rounded(np.average([row[name] for row in rows], weights=[row["photographs"] for row in rows]))
        for name in ("probability_mean", "novel")
    }
    return sums | _top1(sums, sums["right"]) | {"top5": rounded(sums["in_five"] / sums["photographs"])} | means


def _lines(figures: dict[str, Any], data: EvaluationData) -> list[str]:
    usual = data.predictions
    confidence = probabilities(usual.logits, data.card.temperature).max(1)
    right = int((usual.logits.argmax(1) == data.targets).sum())
    beside = {
        "photographs": len(data.targets),
        "probability_mean": rounded(confidence.mean()),
        "novel": rounded((usual.novelty > KEPT).mean()),
    }
    beside |= _top1(beside, right) | {"in_five": metrics.top_k(usual.logits, data.targets, 5) * len(confidence)}
    rows = [_cells(row["folder"], row["label"] or "none", row) for row in figures["folders"]]
    rows.append(_cells("all with a label", "", figures["all"]))
    rows.append(_cells(f"the {data.split} images", "", beside))
    head = ["folder", "label", "images", "top-1 (95 % interval)", "among the best five", "mean probability"]
    return [
        "Images from other sources. Accuracy is stated for folders that show a label of the model; the "
        f"last column is the share whose novelty is above {KEPT}, as that of one validation image in twenty is.",
        "",
        *table([*head, f"novelty above {KEPT}"], rows),
    ]


def _cells(name: str, label: str, row: Mapping[str, Any]) -> tuple[object, ...]:
    measured = "top1" in row
    return (
        name,
        label,
        row["photographs"],
        f"{percent(row['top1'])} ({interval(row['top1_interval'])})" if measured else "-",
        percent(row["in_five"] / row["photographs"]) if measured else "-",
        percent(row["probability_mean"]),
        percent(row["novel"]),
    )
