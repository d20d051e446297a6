"""What a run keeps between its linear probe and its best epoch."""

import numpy as np
import pytest
import torch

from training.fit.selection import between, select


def logits(chances: list[float]) -> np.ndarray:
    """Return logits (N, 2) of images of label 0 that get these probabilities of it."""
    of_label = np.array(chances)
    result: np.ndarray = np.log(np.stack([of_label, 1 - of_label], axis=1))
    return result


@pytest.mark.parametrize(
    ("average", "epoch", "share"),
    [
        ([0.9, 0.9, 0.9, 0.2], [0.9, 0.9, 0.9, 0.2], 0.0),
        ([0.9, 0.9, 0.3, 0.1], [0.99, 0.99, 0.4, 0.4], 0.0),
        ([0.99, 0.9, 0.6, 0.2], [0.5001, 0.99, 0.99, 0.2], 0.0),
        ([0.9, 0.9, 0.9, 0.4], [0.9, 0.9, 0.9, 0.4], 0.4),
        ([0.85, 0.85, 0.82, 0.22], [0.95, 0.97, 0.96, 0.6], 1.0),
    ],
    ids=["equal", "less-accurate", "gain-on-one-image", "average-as-good", "epoch-clearly-better"],
)
def test_the_probe_is_kept_unless_others_are_clearly_better(
    average: list[float], epoch: list[float], share: float
) -> None:
    probe = [0.8, 0.8, 0.8, 0.2] if share else [0.9, 0.9, 0.9, 0.2]
    chosen = select({0.0: logits(probe), 0.4: logits(average), 1.0: logits(epoch)}, np.zeros(4, int))
    assert chosen.share == share
    assert chosen.accuracy >= 0.75
    assert chosen.name == {0.0: "probe", 0.4: "average", 1.0: "epoch"}[share]


def test_one_validation_image_proves_nothing() -> None:
    assert select({0.0: logits([0.6]), 1.0: logits([0.99])}, np.zeros(1, int)).share == 0.0


def test_what_is_less_accurate_than_the_probe_is_never_kept_however_sure_it_is() -> None:
    probe, epoch = [0.51] * 9 + [0.51], [0.99] * 9 + [0.49]
    assert select({0.0: logits(probe), 1.0: logits(epoch)}, np.zeros(10, int)).share == 0.0


def test_weights_between_two_have_a_share_of_each_and_the_counters_of_the_second() -> None:
    start = {"weight": torch.tensor([0.0, 2.0]), "count": torch.tensor(3)}
    tuned = {"weight": torch.tensor([1.0, 0.0]), "count": torch.tensor(7)}
    mixed = between(start, tuned, 0.25)
    assert mixed["weight"].tolist() == [0.25, 1.5]
    assert mixed["count"].item() == 7
    assert torch.equal(between(start, tuned, 0)["weight"], start["weight"])
    assert torch.equal(between(start, tuned, 1)["weight"], tuned["weight"])
