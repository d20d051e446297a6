"""The split for figures on a published test: the test stays as it is, a tenth of the rest validates."""

from collections import Counter

import pytest

from training.data import splits
from training.data.datasets import Photograph, Split
from visionserve.errors import BundleError


def photographs(count: int, split: Split | None, label: str = "rose") -> list[Photograph]:
    return [Photograph(f"{split}/{label}/{number}.jpg", label, split) for number in range(count)]


def digests(found: list[Photograph]) -> dict[str, str]:
    return {p.path: p.path for p in found}


def test_the_test_stays_and_a_tenth_of_every_label_of_the_rest_validates() -> None:
    found = [p for label in ("rose", "iris") for p in photographs(10, "train", label) + photographs(10, "val", label)]
    found += photographs(7, "test")
    division = splits.divide("given-test", found, digests(found), seed=1)
    counts = Counter((p.label, division[p.path]) for p in found)
    assert counts == {("rose", "train"): 18, ("rose", "val"): 2, ("iris", "train"): 18, ("iris", "val"): 2} | {
        ("rose", "test"): 7
    }
    assert division != splits.divide("given-test", found, digests(found), seed=2)


def test_a_twin_of_a_test_photograph_is_left_out_and_other_twins_are_learnt_from() -> None:
    found = photographs(20, "train") + photographs(5, "test")
    same = digests(found) | {"train/rose/0.jpg": "test/rose/0.jpg", "train/rose/1.jpg": "x", "train/rose/2.jpg": "x"}
    division = splits.divide("given-test", found, same, seed=1)
    assert "train/rose/0.jpg" not in division
    assert division["train/rose/1.jpg"] == division["train/rose/2.jpg"] == "train"
    assert Counter(division.values()) == {"train": 17, "val": 2, "test": 5}


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (photographs(20, None), "no test split of its own"),
        (photographs(20, "train"), "no test split of its own"),
        (photographs(1, "train") + photographs(5, "test"), "'rose' has 1 distinct photographs besides its test"),
    ],
)
def test_a_source_that_cannot_be_divided_so_is_refused(found: list[Photograph], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        splits.divide("given-test", found, digests(found), seed=1)
