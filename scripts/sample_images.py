"""`python -m scripts.sample_images FOLDER`: draw a folder of labelled sample images: circles, squares, triangles.

For the tutorial and the notebooks, where nobody has photographs at hand. The same files every time.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

LABELS = ("circle", "square", "triangle")
_HEIGHT, _WIDTH = 150, 190


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw and say where."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.sample_images", description="Draw a folder of labelled photographs."
    )
    parser.add_argument("folder", type=Path, help="gets a folder for each label")
    parser.add_argument("--each", type=int, default=60, help="photographs of a label (default: %(default)s)")
    options = parser.parse_args(arguments)
    draw(options.folder, options.each)
    print(f"{options.folder}: {options.each} photographs each of {', '.join(LABELS)}")
    return 0


def draw(root: Path, each: int = 60) -> Path:
    """Write class folders of JPEGs below ``root`` and return it."""
    for place, label in enumerate(LABELS):
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            picture = photograph(label, seed=1000 * place + number)
            picture.save(root / label / f"{number:03d}.jpg", quality=90)
    return root


def photograph(label: str, seed: int) -> Image.Image:
    """Draw one shape, of any size, place and colour, before a grainy background."""
    source = np.random.default_rng(seed)
    coarse = source.integers(40, 200, (5, 6, 3)).astype(np.uint8)
    picture = Image.fromarray(coarse).resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC)
    radius = int(source.integers(28, 55))
    x, y = source.uniform(0.35, 0.65, 2) * (_WIDTH, _HEIGHT)
    colour = tuple(int(level) for level in source.choice([10, 245], 3))
    pen = ImageDraw.Draw(picture)
    if label == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    else:
        sides = 4 if label == "square" else 3
        pen.regular_polygon((x, y, radius), sides, rotation=int(source.integers(0, 360)), fill=colour)
    grain = source.normal(0, 6, (_HEIGHT, _WIDTH, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + grain, 0, 255).astype(np.uint8))


if __name__ == "__main__":
    raise SystemExit(main())
