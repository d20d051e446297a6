"""Self-test: the image that the launcher's probes send, and the first prediction as a table."""

import contextlib
from collections.abc import Mapping
from importlib import util
from pathlib import Path
from typing import Any

from launcher.archive import Archive
from launcher.settings import SetupError

_BAR, _ROWS = 30, 3
FLOWERS = "flowers"  # the shipped model; its data set may not be passed on
SAMPLES = ".samples"  # in the folder of the archives, where `python -m training` made a bundle there


def probe_image(archive: Archive, model_store: Path) -> tuple[str, bytes]:
    """Return a title and an encoded image: one that the model was made for, a dahlia, or a drawn flower.

    The title says where a model that may not know flowers is tried with one.
    """
    own = model_store / SAMPLES / f"{archive.name}.jpg"
    with contextlib.suppress(OSError):
        return f"One of the test images of {archive.name}, {own}:", own.read_bytes()
    strange = "" if archive.name == FLOWERS else f"; {archive.name} has no image of its own at {own}"
    try:
        return f"A dahlia, from scikit-learn{strange}:", dahlia().read_bytes()
    except (SetupError, OSError):
        return f"A flower, drawn{strange}:", Path(__file__).with_name("sample.jpg").read_bytes()


def dahlia() -> Path:
    """Return scikit-learn's photograph of a dahlia, which no data set of flowers holds.

    The package is located without importing it, which would take seconds.
    """
    package = util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise SetupError("scikit-learn, which brings the sample image, is not installed: name a FILE instead.")
    return Path(package.origin).parent / "datasets" / "images" / "flower.jpg"


def table(title: str, prediction: Mapping[str, Any]) -> str:
    """Return a prediction as lines: label, probability and bar for the best entries, then the novelty."""
    best = prediction["predictions"][:_ROWS]
    width = max(len(entry["label"]) for entry in best)
    rows = [_row(entry, width) for entry in best]
    novelty = f"  novelty {prediction['novelty']:.2f}  (0: very like the training images, 1: unlike all of them)"
    return "\n".join([title, *rows, novelty])


def _row(entry: Mapping[str, Any], width: int) -> str:
    bar = "█" * round(entry["probability"] * _BAR)
    return f"  {entry['label']:<{width}}  {entry['probability']:7.2%}  {bar}".rstrip()
