"""Self-test: the image that the launcher's probes send, and the first prediction as a table."""

from collections.abc import Mapping
from importlib import util
from pathlib import Path
from typing import Any

from launcher.settings import SetupError

_BAR = 30


def probe_image() -> tuple[str, bytes]:
    """Return a title and an encoded image: a dahlia where scikit-learn is installed, else a drawn flower."""
    try:
        return "A dahlia, from scikit-learn:", dahlia().read_bytes()
    except (SetupError, OSError):
        return "A flower, drawn:", Path(__file__).with_name("sample.jpg").read_bytes()


def dahlia() -> Path:
    """Return scikit-learn's photograph of a dahlia, which no data set of flowers holds.

    The package is located without importing it, which would take seconds.
    """
    package = util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise SetupError("scikit-learn, which brings the sample image, is not installed: name a FILE instead.")
    return Path(package.origin).parent / "datasets" / "images" / "flower.jpg"


def table(title: str, prediction: Mapping[str, Any]) -> str:
    """Return a prediction as lines: label, probability and bar for each entry, then the novelty."""
    width = max(len(entry["label"]) for entry in prediction["predictions"])
    rows = [_row(entry, width) for entry in prediction["predictions"]]
    novelty = f"  novelty {prediction['novelty']:.2f}  (0: very like the training images, 1: unlike all of them)"
    return "\n".join([title, *rows, novelty])


def _row(entry: Mapping[str, Any], width: int) -> str:
    bar = "█" * round(entry["probability"] * _BAR)
    return f"  {entry['label']:<{width}}  {entry['probability']:7.2%}  {bar}".rstrip()
