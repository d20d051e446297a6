"""Draw the README's picture from a running service: a photograph, its bars, its heatmap (`make picture`).

The photograph is scikit-learn's sample image flower.jpg (by vultilion, CC BY 2.0).
"""

import argparse
import io
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import requests
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from launcher.self_test import dahlia

INK, BAR, PALE = "#22303c", "#d9480f", "#f4b183"
TIMEOUT_S = 10


def main() -> int:
    """Ask the service and write the picture; return a process exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="where the service answers")
    parser.add_argument("--model", default="flowers")
    parser.add_argument("--output", type=Path, default=Path("docs/answer.png"))
    options = parser.parse_args()
    file = dahlia().read_bytes()
    try:
        answer = ask(f"{options.url}/predictions/{options.model}", file, {"x-top-k": "5"}).json()
        overlay = ask(f"{options.url}/explanations/{options.model}", file, {"x-format": "png"}).content
    except requests.RequestException as error:
        print(f"no answer from {options.url} ({error}); start it with `make serve`", file=sys.stderr)
        return 3
    draw(pixels(file), answer, pixels(overlay)).savefig(options.output, dpi=110)
    print(options.output)
    return 0


def pixels(file: bytes) -> np.ndarray:
    """Return an image file as (H, W, 3) uint8."""
    return np.asarray(Image.open(io.BytesIO(file)))


def ask(url: str, photograph: bytes, options: dict[str, str]) -> requests.Response:
    """Post a photograph; raise requests.HTTPError on any answer but success."""
    response = requests.post(url, data=photograph, headers=options, timeout=TIMEOUT_S)
    response.raise_for_status()
    return response


def draw(photograph: np.ndarray, answer: dict[str, Any], overlay: np.ndarray) -> Figure:
    """Return the figure: the photograph (H, W, 3), the answer's bars, the overlay (S, S, 3)."""
    mpl.rcParams |= {"font.family": "DejaVu Sans", "text.color": INK}
    figure = Figure(figsize=(11, 3.1), facecolor="white", layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=[1.5, 1.7, 1])
    for axes, image, title in ((left, photograph, "photograph"), (right, overlay, "where it shows")):
        axes.imshow(image)
        axes.set_axis_off()
        axes.set_title(title, fontsize=11)
    bars(middle, answer)
    return figure


def bars(axes: Axes, answer: dict[str, Any]) -> None:
    """Draw the predictions as horizontal bars, the most probable on top."""
    found = answer["predictions"][::-1]
    values = [entry["probability"] for entry in found]
    drawn = axes.barh([entry["label"] for entry in found], values, color=[PALE] * (len(found) - 1) + [BAR], height=0.7)
    axes.bar_label(drawn, [f"{value:.1%}" for value in values], padding=4, fontsize=10, color=INK)
    axes.set_xlim(0, 1.18)
    axes.set_xticks([])
    axes.tick_params(axis="y", length=0, labelsize=11, labelcolor=INK)
    axes.spines[:].set_visible(False)
    axes.set_title(f"calibrated probability   (novelty {answer['novelty']:.2f})", fontsize=11)


if __name__ == "__main__":
    sys.exit(main())
