"""Augmentation: sizes, types and draws that can be repeated."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from training.data.augment import Augmentation, blend, random_box
from training.recipe import Augment

PHOTOGRAPH = np.random.default_rng(0).integers(0, 256, (41, 35, 3), dtype=np.uint8)


@pytest.mark.parametrize("policy", ["trivial", "rand", "none"])
def test_the_same_seed_draws_the_same_variation_and_another_one_another(policy: str) -> None:
    augmentation = Augmentation(Augment(policy=policy))  # type: ignore[arg-type]
    first, again, other = (augmentation(PHOTOGRAPH, 17, seed) for seed in (5, 5, 6))
    assert first.shape == (17, 17, 3)
    assert first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_variation_leaves_the_global_random_numbers_alone() -> None:
    before = torch.random.get_rng_state()
    Augmentation(Augment())(PHOTOGRAPH, 17, 5)
    assert torch.equal(before, torch.random.get_rng_state())


def test_random_boxes_lie_inside_and_keep_the_least_area() -> None:
    torch.manual_seed(0)
    for _ in range(200):
        top, left, height, width = random_box(60, 60, min_area=0.5)
        assert 0 <= top <= 60 - height
        assert 0 <= left <= 60 - width
        assert height * width >= 0.45 * 60 * 60  # half, less what the wide and the tall boxes lose at the border


@pytest.mark.parametrize(
    ("settings", "kind"), [(Augment(mixup=1.0, cutmix=0.0), "mixup"), (Augment(mixup=0.0, cutmix=1.0), "cutmix")]
)
def test_the_share_of_a_label_is_the_share_of_its_pixels(settings: Augment, kind: str) -> None:
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 16, 20).clone()
    for seed in range(20):
        mixed = blend(images, settings, seed)
        expected = mixed.share * torch.arange(4.0) + (1 - mixed.share) * mixed.partner
        assert torch.allclose(mixed.images.mean((1, 2, 3)), expected, atol=1e-5), kind


def test_a_batch_is_left_alone_when_nothing_is_to_be_blended() -> None:
    images = torch.rand(4, 3, 8, 8)
    mixed = blend(images, Augment(mixup=0.0, cutmix=0.0), 3)
    assert mixed.share == 1.0
    assert torch.equal(mixed.images, images)


@pytest.mark.parametrize(
    "entry",
    [
        "colour",
        "hue",
        "contrast",
        "grey",
        "rotate",
        "translate",
        "perspective",
        "erase",
        "flip_vertical",
        "shrink",
        "blur",
        "compress",
    ],
)
def test_what_cameras_and_the_web_do_changes_the_pixels_and_no_more(entry: str) -> None:
    gentle = Augment(policy="none", colour_probability=1.0)
    strength = {"rotate": 20.0, "hue": 0.5, "translate": 0.3}.get(entry, 1.0)
    before = Augmentation(gentle)(PHOTOGRAPH, 32, 5).float()
    after = Augmentation(replace(gentle, **{entry: strength}))(PHOTOGRAPH, 32, 5)  # type: ignore[arg-type]
    assert after.shape == (32, 32, 3)
    assert after.dtype == torch.uint8
    difference = (before - after.float()).abs()
    assert difference.mean() > 1


def test_a_turned_image_has_no_empty_corner() -> None:
    bright = np.full((40, 40, 3), 200, np.uint8)
    augmentation = Augmentation(Augment(policy="none", min_area=1.0, rotate=45.0))
    assert min(int(augmentation(bright, 32, seed).min()) for seed in range(20)) >= 199
