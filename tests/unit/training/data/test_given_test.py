"""The split for figures on a published test: the test stays as it is, a tenth of the rest validates."""

from collections import Counter

import pytest

from training.data import splits
from training.data.datasets import ImageFile, Split
from visionserve.errors import BundleError


def images(count: int, split: Split | None, label: str = "rose") -> list[ImageFile]:
    return [ImageFile(f"{split}/{label}/{number}.jpg", label, split) for number in range(count)]


def digests(found: list[ImageFile]) -> dict[str, str]:
    return {p.path: p.path for p in found}


def test_the_test_stays_and_a_tenth_of_every_label_of_the_rest_validates() -> None:
    found = [p for label in ("rose", "iris") for p in images(500, "train", label) + images(500, "val", label)]
    found += images(7, "test")
    split = splits.divide("given-test", found, digests(found), seed=1)
    counts = Counter((p.label, split[p.path]) for p in found)
    assert counts["rose", "test"] == 7
    for label in ("rose", "iris"):
        assert counts[label, "val"] == pytest.approx(100, abs=30)  # three standard deviations of a binomial
        assert counts[label, "val"] + counts[label, "train"] == 1000
    assert split != splits.divide("given-test", found, digests(found), seed=2)


def test_a_duplicate_of_a_test_image_is_left_out_and_other_duplicates_are_trained_on() -> None:
    found = images(20, "train") + images(5, "test")
    same = digests(found) | {"train/rose/0.jpg": "test/rose/0.jpg", "train/rose/1.jpg": "x", "train/rose/2.jpg": "x"}
    split = splits.divide("given-test", found, same, seed=1)
    assert "train/rose/0.jpg" not in split
    assert split["train/rose/1.jpg"] == split["train/rose/2.jpg"] == "train"
    assert Counter(split.values()) == {"train": 17, "val": 2, "test": 5}


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (images(20, None), "no test split of its own"),
        (images(20, "train"), "no test split of its own"),
        (images(1, "train") + images(5, "test"), "'rose' has 1 distinct images besides its test"),
    ],
)
def test_a_source_that_cannot_be_divided_so_is_refused(found: list[ImageFile], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        splits.divide("given-test", found, digests(found), seed=1)
