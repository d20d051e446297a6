"""The drift alerts' thresholds, held against real images: no alert on held-out flowers, one on other images.

The novelty of the shipped model is a rank among validation images of two sources, weighted alike: Oxford 102 Flowers
and websites. So the share of novel images is taken as the mean over both.
"""

import csv
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from monitoring import reference
from tests import queries
from tests.contract.conftest import BUNDLE
from visionserve.classifier import Classifier

DATA = Path(os.environ.get("VISIONSERVE_DATA", "/nowhere"))
# A bound of the handler's buckets, which the alert of novelty looks at.
BOUND = 0.95
FOREIGN = ("flowers-web", "cats-and-dogs")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (DATA / "flowers-102").is_dir(), reason="set VISIONSERVE_DATA to a folder that has flowers-102"
    ),
]


@dataclass(frozen=True)
class Answers:
    """The novelty and the best label of some photographs."""

    novelty: np.ndarray
    labels: Counter[str]

    @property
    def share_above_bound(self) -> float:
        return float((self.novelty > BOUND).mean())


def answers(classifier: Classifier, files: Iterable[Path]) -> Answers:
    found = [classifier.classify(classifier.prepare(file.read_bytes())[None])[0] for file in files]
    return Answers(np.array([answer.novelty for answer in found]), Counter(answer.top(1)[0].label for answer in found))


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier.load(BUNDLE)


def held_out_images(classifier: Classifier, manifest: str, folder: str) -> Answers:
    with (BUNDLE / manifest).open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "test"]
    return answers(classifier, [DATA / folder / row["path"] for row in rows])


@pytest.fixture(scope="module")
def held_out(classifier: Classifier) -> Answers:
    return held_out_images(classifier, "manifest.csv", "flowers-102")


@pytest.fixture(scope="module")
def share(classifier: Classifier, held_out: Answers) -> float:
    """The share of held-out flowers above the bound."""
    if not (DATA / "flowers-wild").is_dir():
        pytest.skip("set VISIONSERVE_DATA to a folder that has flowers-wild")
    websites = held_out_images(classifier, "manifest-wild.csv", "flowers-wild")
    return (held_out.share_above_bound + websites.share_above_bound) / 2


@pytest.fixture(scope="module")
def foreign(classifier: Classifier) -> dict[str, Answers]:
    return {name: answers(classifier, sorted((DATA / name).rglob("*.jpg"))[::4]) for name in FOREIGN}


def limit(alert: str, series: str) -> float:
    """The number that an alert compares a series with."""
    (rule,) = queries.alerts()[alert]
    found = re.search(rf"{re.escape(series)} > ([\d.]+)", rule["expr"])
    assert found is not None
    return float(found[1])


def stability_index(labels: Counter[str]) -> float:
    """The formula of drift.yml."""
    shares = reference.label_shares(BUNDLE)
    expected = np.array(list(shares.values()))
    counts = np.array([labels[label] for label in shares])
    seen = (counts + len(shares) * expected) / (counts.sum() + len(shares))
    return float(((seen - expected) * np.log(seen / expected)).sum())


def test_held_out_flowers_are_as_novel_as_the_alert_expects(share: float) -> None:
    assert share == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_quarter_of_other_images_raises_the_alert_of_novelty_and_a_thirtieth_does_not(
    share: float, foreign: dict[str, Answers], name: str
) -> None:
    highest = limit("VisionserveNoveltyHigh", "visionserve:novelty:share_above_095_1h")
    other = foreign[name].share_above_bound
    assert 0.97 * share + 0.03 * other < highest < 0.75 * share + 0.25 * other


def test_held_out_flowers_are_mixed_like_the_reference_and_foreign_ones_are_not(
    held_out: Answers, foreign: dict[str, Answers]
) -> None:
    highest = limit("VisionserveLabelMixShifted", "visionserve:label_mix:psi1d")
    # Fewer photographs than the alert asks for, so that chance has more of a share in the index than it will have.
    assert stability_index(held_out.labels) < highest
    assert all(stability_index(found.labels) > highest for found in foreign.values())
