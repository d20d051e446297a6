"""What `python -m training pointing-game` leaves behind: parts.md, parts.json, a bar plot, a sheet of images."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from training.data.cache import read
from training.evaluation.geometry import look
from training.evaluation.pointing_game import Pointing
from training.markdown import interval, percent, table
from training.plotting import ACCENT, INK, PALE, WARN, plain, save
from visionserve.heatmap import overlay_png

SHOWN = 20  # images on the sheet
_ACROSS = 5
_INCHES = 2.3  # of an image
_POINTERS = {
    "peak": "peak of the heatmap",
    "peak_of_right_answers": "the same, right predictions only",
    "centre": "centre of the image",
    "chance": "chance: the box's mean share of the image",
}


def write(folder: Path, peaks: Sequence[Pointing], figures: dict[str, Any], root: Path) -> None:
    """Write the four files; the images of the sheet are read below ``root``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "parts.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    (folder / "parts.md").write_text("\n".join(_text(figures)) + "\n", encoding="utf-8")
    save(_bars(figures["parts"]), folder / "parts.png")
    save(_sheet(peaks, root), folder / "sheet.png")


def _text(figures: dict[str, Any]) -> list[str]:
    distance = figures["median_distance"]
    return [
        "# Where the heatmap points",
        "",
        f"{figures['photographs']} images of the {figures['split']} split, heatmap of the predicted label. A hit "
        "is a peak inside the bird's bounding box; tolerance around the box: "
        f"{figures['tolerance_px']:g} pixels of the file.",
        "",
        *table(("pointer", "hits", "share", "95 % interval"), [_pointer(*item) for item in _items(figures)]),
        "",
        f"The annotated, visible part nearest to the peak; {figures['without_visible_parts']} images show none. "
        + ("" if distance is None else f"Median distance: {percent(distance, 0)} of the box's diagonal."),
        "",
        *table(
            ("part", "nearest to the peak", "share", "95 % interval", "nearest to the image's centre", "visible in"),
            [
                (
                    row["part"],
                    row["hits"],
                    percent(row["share"]),
                    interval(row["interval"]),
                    row["nearest_to_centre"],
                    row["visible"],
                )
                for row in figures["parts"]
            ],
        ),
        "",
        "![How often each part is nearest to the peak](parts.png)",
        "",
        "![Images, heatmaps, peaks and parts](sheet.png)",
    ]


def _items(figures: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(_POINTERS[name], entry) for name, entry in figures["pointing"].items()]


def _pointer(name: str, entry: dict[str, Any]) -> tuple[str, str, str, str]:
    hits = f"{entry['hits']} of {entry['of']}" if "hits" in entry else "-"
    return name, hits, percent(entry["share"]), interval(entry["interval"]) if entry.get("interval") else "-"


def _bars(rows: Sequence[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(7.2, 1.4 + 0.28 * max(len(rows), 1)), layout="constrained")
    axes = figure.subplots()
    for index, row in enumerate(rows):
        axes.barh(index, row["share"], color=PALE, edgecolor=ACCENT, height=0.7)
        axes.plot(row["interval"], [index, index], color=INK, linewidth=1)
        axes.plot(row["nearest_to_centre"] / row["of"], index, "D", color=WARN, markersize=5, clip_on=False)
    axes.set_yticks(range(len(rows)), [f"{row['part']}  {row['hits']}" for row in rows], fontsize=8)
    axes.set(xlim=(0, None), ylim=(max(len(rows), 1) - 0.4, -0.6))
    axes.set_xlabel("share of the images; line: 95 % interval, diamond: the image's centre instead", fontsize=8)
    axes.set_title("The part nearest to the heatmap's peak", color=INK, fontsize=11)
    plain(axes)
    return figure


def _sheet(peaks: Sequence[Pointing], root: Path) -> Figure:
    """Return images taken at equal steps from the split."""
    indices = np.unique(np.linspace(0, len(peaks) - 1, SHOWN).round().astype(int))
    rows = -(-len(indices) // _ACROSS)
    figure = Figure(figsize=(_INCHES * _ACROSS, (_INCHES + 0.25) * rows + 0.4), layout="constrained")
    grid = figure.subplots(rows, _ACROSS, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, index in zip(grid, indices, strict=False):
        _tile(axes, peaks[index], root)
    figure.suptitle("Heatmap, its peak (cross), the bird's box and the nearest visible part (circle)", color=INK)
    return figure


def _tile(axes: Axes, item: Pointing, root: Path) -> None:
    image, view = look(read(root / item.path), item.view.preprocessing)
    axes.imshow(np.asarray(Image.open(io.BytesIO(overlay_png(image, item.class_map)))))
    box = item.annotation.box
    corners = np.array([view.to_input((box.x, box.y)), view.to_input((box.x + box.width, box.y + box.height))]) - 0.5
    width, height = np.ptp(corners, axis=0)
    # imshow puts the centre of the first pixel at 0.
    axes.add_patch(Rectangle(tuple(corners.min(0)), width, height, fill=False, edgecolor="white", linewidth=1.5))
    _mark(axes, view.to_input(item.peak), "x", WARN if not item.inside else "black")
    if item.part is not None:
        _mark(axes, view.to_input((item.part.x, item.part.y)), "o", "white")
    axes.set(xlim=(-0.5, len(image) - 0.5), ylim=(len(image) - 0.5, -0.5))
    predicted = item.predicted if item.predicted == item.label else f"{item.predicted}, not {item.label}"
    part = "no visible part" if item.part is None else item.part.name
    axes.set_title(
        f"{part}{'' if item.inside else ', off the bird'}\n{predicted}",
        fontsize=7.5,
        color=_colour(item),
        pad=3,
        parse_math=False,
    )


def _colour(item: Pointing) -> str:
    return ACCENT if item.predicted == item.label else WARN


def _mark(axes: Axes, position: tuple[float, float], marker: str, colour: str) -> None:
    axes.plot(
        position[0] - 0.5,
        position[1] - 0.5,
        marker,
        markersize=8,
        markerfacecolor="none",
        markeredgewidth=2,
        markeredgecolor=colour,
    )
