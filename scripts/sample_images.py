"""Generate a folder of labelled sample images: circles, squares, triangles (`python -m scripts.sample_images FOLDER`).

For the tutorial and the notebooks, which need no data set. The files are the same every time.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from visionserve import missing_package

with missing_package.explained("python -m scripts.sample_images", "serve"):
    import numpy as np
    from PIL import Image, ImageDraw

LABELS = ("circle", "square", "triangle")
_HEIGHT, _WIDTH = 150, 190


def main(arguments: Sequence[str] | None = None) -> int:
    """Generate the images and print their folder."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.sample_images", description="Generate a folder of labelled images."
    )
    parser.add_argument("folder", type=Path, help="where the class folders are written")
    parser.add_argument("--each", type=int, default=60, help="images per label (default: %(default)s)")
    parser.add_argument(
        "--start", type=int, default=0, help="number of the first one; other numbers are other images (default: 0)"
    )
    args = parser.parse_args(arguments)
    draw(args.folder, args.each, args.start)
    print(f"{args.folder}: {args.each} images each of {', '.join(LABELS)}")
    return 0


def draw(root: Path, each: int = 60, start: int = 0) -> Path:
    """Write class folders of JPEGs below ``root`` and return it."""
    for index, label in enumerate(LABELS):
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(start, start + each):
            image = sample(label, seed=1000 * index + number)
            image.save(root / label / f"{number:03d}.jpg", quality=90)
    return root


def sample(label: str, seed: int) -> Image.Image:
    """Draw one shape of random size, position and colour on a noisy background."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 200, (5, 6, 3)).astype(np.uint8)
    image = Image.fromarray(coarse).resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC)
    radius = int(rng.integers(28, 55))
    x, y = rng.uniform(0.35, 0.65, 2) * (_WIDTH, _HEIGHT)
    colour = tuple(int(level) for level in rng.choice([10, 245], 3))
    pen = ImageDraw.Draw(image)
    if label == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    else:
        sides = 4 if label == "square" else 3
        pen.regular_polygon((x, y, radius), sides, rotation=int(rng.integers(0, 360)), fill=colour)
    noise = rng.normal(0, 6, (_HEIGHT, _WIDTH, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


if __name__ == "__main__":
    raise SystemExit(main())
