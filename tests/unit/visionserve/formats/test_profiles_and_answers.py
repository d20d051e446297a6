"""What a colour profile is worth: the shipped model's answers to the same images in other colour spaces."""

import io
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.unit.visionserve.formats import profiles
from visionserve.classifier import Classifier
from visionserve.images import decode

BUNDLE = Path(__file__).parents[4] / "model_store" / "flowers"
FOLDER = Path(os.environ.get("VISIONSERVE_DATA", "")) / "flowers-102" / "jpg"
COUNT = int(os.environ.get("VISIONSERVE_PROFILE_IMAGES", "40"))  # docs/LOG.md has 300
_log = logging.getLogger(__name__)
SPACES = {
    "Display P3": (profiles.DISPLAY_P3, profiles.srgb_as_p3),
    "Adobe RGB": (profiles.ADOBE_RGB, profiles.srgb_as_adobe),
    "ProPhoto RGB": (profiles.PROPHOTO, profiles.srgb_as_prophoto),
}


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.load(BUNDLE)


def png(pixels: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1, **options)
    return file.getvalue()


def probabilities(classifier: Classifier, file: bytes) -> np.ndarray:
    image = classifier.preprocessing(decode(file, min_side=classifier.preprocessing.min_side))
    return classifier.classify(image[None])[0].probabilities


@pytest.mark.skipif(
    "VISIONSERVE_DATA" not in os.environ or not FOLDER.is_dir(),
    reason="needs the folder flowers-102: set VISIONSERVE_DATA to the folder that holds it.",
)
@pytest.mark.parametrize("name", SPACES)
def test_a_tagged_image_is_answered_like_its_original(classifier: Classifier, name: str) -> None:
    profile, from_srgb = SPACES[name]
    files = sorted(FOLDER.glob("*.jpg"))
    moved: dict[str, list[float]] = {"tagged": [], "untagged": []}
    agree = {"tagged": 0, "untagged": 0}
    for path in files[:: len(files) // COUNT][:COUNT]:
        pixels = decode(path.read_bytes())
        original = probabilities(classifier, png(pixels))
        other = from_srgb(pixels)
        for kind, options in (("tagged", {"icc_profile": profile}), ("untagged", {})):
            answer = probabilities(classifier, png(other, **options))
            moved[kind].append(float(np.abs(answer - original).sum() / 2))
            agree[kind] += int(answer.argmax() == original.argmax())
    means = {kind: float(np.mean(values)) for kind, values in moved.items()}
    _log.info("%s: labels agree %s of %d, distance of the probabilities %s", name, agree, COUNT, means)
    assert agree["tagged"] >= 0.97 * COUNT and agree["tagged"] >= agree["untagged"]
    # What is left is the rounding of the other space to 8 bits.
    assert means["tagged"] < 0.5 * means["untagged"], "total variation distance, 0-1"
