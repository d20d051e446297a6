"""Where the model looked: heatmaps of right and of wrong answers."""

import io

import numpy as np
from PIL import Image

from training.evaluation.calibration import probabilities
from training.evaluation.evaluate import Evidence, batches
from training.evaluation.report.sections import Plot, Section
from training.evaluation.report.sheets import Tile, sheet
from training.plotting import ACCENT, WARN
from visionserve.heatmap import overlay_png

SHOWN = 12  # of the right answers, and of the wrong ones
SEED = 0


def section(evidence: Evidence) -> Section:
    """Return two sheets of photographs; they hold no figures."""
    found = probabilities(evidence.served.logits, evidence.card.temperature)
    said = found.argmax(1)
    right, wrong = np.flatnonzero(said == evidence.targets), np.flatnonzero(said != evidence.targets)
    chosen = np.sort(np.random.default_rng(SEED).permutation(right)[:SHOWN])
    surest = wrong[np.argsort(-found[wrong, said[wrong]], kind="stable")[:SHOWN]]
    lines = [
        "The heatmap is the one that is served: what speaks for a label, place by place, the strongest place red. "
        f"Right answers are a random choice with seed {SEED}; of the wrong ones the surest are shown, with the heatmap "
        "of the label that was said and of the true one."
    ]
    plots = []
    if len(chosen):
        groups = [_tiles(evidence, found, place, (said[place],)) for place in chosen]
        caption = f"Right answers: {len(chosen)} of {len(right)}, photograph and heatmap"
        plots.append(Plot("heatmaps_right", sheet(groups, 3, "Right answers"), caption, photographs=True))
    if len(surest):
        groups = [_tiles(evidence, found, place, (said[place], evidence.targets[place])) for place in surest]
        caption = f"Wrong answers: the surest {len(surest)} of {len(wrong)}; photograph, heatmap of the label that was "
        caption += "said, heatmap of the true label"
        plots.append(Plot("heatmaps_wrong", sheet(groups, 2, "Wrong answers"), caption, photographs=True))
    return Section("Heatmaps", lines, plots=plots)


def _tiles(evidence: Evidence, found: np.ndarray, place: int, labels: tuple[int, ...]) -> list[Tile]:
    """Return a photograph of the split and its heatmaps for some labels; the first is the one that was said."""
    image, target = evidence.images[place], evidence.targets[place]
    (answer,) = evidence.classifier.classify(next(batches(image[None])))
    names = evidence.card.labels
    tiles = [Tile(image, names[target])]
    for label in labels:
        part, share = "true" if len(tiles) > 1 else "said", f"{100 * found[place, label]:.0f}\N{NO-BREAK SPACE}%"
        overlay = Image.open(io.BytesIO(overlay_png(image, answer.class_map(int(label)))))
        tiles.append(Tile(np.asarray(overlay), f"{part}: {names[label]}, {share}", ACCENT if label == target else WARN))
    return tiles
