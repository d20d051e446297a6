"""The fifteen corruptions, on flowers that the project draws."""

import numpy as np
import pytest

from training.evaluation.corruptions import KINDS, MILD, SEVERITIES, corrupt
from training.evaluation.corruptions.weather import plasma
from training.networks import synthetic_images

FLOWERS = synthetic_images(112, 2)
LARGE = synthetic_images(224, 2)  # the size of the published strengths


def differences(kind: str) -> list[float]:
    """Return the mean squared difference that each severity makes."""
    corrupted = [np.stack([corrupt(flower, kind, s, seed) for seed, flower in enumerate(LARGE)]) for s in SEVERITIES]
    return [float(((pictures.astype(float) - LARGE) ** 2).mean()) for pictures in corrupted]


def test_they_are_the_published_fifteen_in_four_groups() -> None:
    groups = [kind.group for kind in KINDS.values()]
    assert {group: groups.count(group) for group in groups} == {"noise": 3, "blur": 4, "weather": 4, "digital": 4}
    assert all(len(kind.strengths) == len(SEVERITIES) for kind in KINDS.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("severity", [1, 5])
def test_a_picture_keeps_its_shape_and_type_and_changes(kind: str, severity: int) -> None:
    upright = np.ascontiguousarray(FLOWERS[1][:, 10:90])
    before = upright.copy()
    corrupted = corrupt(upright, kind, severity, seed=4)
    assert corrupted.shape == upright.shape
    assert corrupted.dtype == np.uint8
    assert (corrupted != upright).any()
    assert (upright == before).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_the_same_picture_again(kind: str) -> None:
    assert (corrupt(FLOWERS[0], kind, 3, seed=7) == corrupt(FLOWERS[0], kind, 3, seed=7)).all()


@pytest.mark.parametrize(
    "kind", ["gaussian noise", "shot noise", "impulse noise", "glass blur", "motion blur", "snow", "frost", "fog"]
)
def test_two_photographs_do_not_share_their_luck(kind: str) -> None:
    assert (corrupt(FLOWERS[0], kind, 3, seed=1) != corrupt(FLOWERS[0], kind, 3, seed=2)).any()


# Not frost: from its third severity to its fourth the published strengths dim the picture and add no frost.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "frost"])
def test_every_severity_changes_more_than_the_one_before(kind: str) -> None:
    found = differences(kind)
    assert found == sorted(found)
    assert len(set(found)) == len(found)


def test_frost_grows_but_for_its_fourth_severity() -> None:
    found = differences("frost")
    assert found[0] < found[1] < found[2] < found[4]


def test_noise_is_as_strong_as_published() -> None:
    grey = np.full((112, 112, 3), 128, np.uint8)
    assert np.std(corrupt(grey, "gaussian noise", 1, 0) / 255) == pytest.approx(0.08, rel=0.05)
    assert np.mean(corrupt(grey, "impulse noise", 5, 0) != 128) == pytest.approx(0.27, rel=0.05)
    # Poisson: 25 photons for white leave sqrt(12.5) of 12.5 for the grey half way.
    assert np.std(corrupt(grey, "shot noise", 2, 0) / 255) == pytest.approx(np.sqrt(128 / 255 * 25) / 25, rel=0.05)


def test_blurs_leave_an_even_surface_alone() -> None:
    grey = np.full((60, 80, 3), 99, np.uint8)
    for kind in ("defocus blur", "glass blur", "motion blur", "zoom blur", "elastic", "pixelate", "contrast"):
        assert (corrupt(grey, kind, 5, 0) == 99).all(), kind


def test_brightness_keeps_the_hue() -> None:
    brown = np.full((8, 8, 3), (60, 40, 20), np.uint8)
    assert corrupt(brown, "brightness", 2, 0)[0, 0].tolist() == [111, 74, 37]
    assert corrupt(np.zeros_like(brown), "brightness", 1, 0)[0, 0].tolist() == [26, 26, 26]


@pytest.mark.parametrize("kind", MILD)
def test_a_mild_corruption_grows_with_its_severity_and_begins_hardly_visible(kind: str) -> None:
    corrupted = [corrupt(LARGE[0], kind, severity, 0, MILD).astype(float) for severity in SEVERITIES]
    differences = [float(((image - LARGE[0]) ** 2).mean()) for image in corrupted]
    assert differences == sorted(set(differences))
    assert differences[0] ** 0.5 < 25  # levels of 255
    assert differences[-1] > 1.5 * differences[0]


def test_black_pictures_are_no_trouble() -> None:
    for kind in KINDS:
        assert corrupt(np.zeros((40, 40, 3), np.uint8), kind, 3, 0).shape == (40, 40, 3)


def test_clouds_fill_the_range_and_meet_at_the_borders() -> None:
    clouds = plasma(np.random.default_rng(0), 64, 2)
    assert (clouds.min(), clouds.max()) == (0, 1)
    inside = np.abs(np.diff(clouds, axis=0)).mean()
    assert np.abs(clouds[0] - clouds[-1]).mean() < 3 * inside


@pytest.mark.parametrize(("kind", "severity"), [("rain", 1), ("fog", 0), ("fog", 6)])
def test_an_unknown_kind_or_severity_is_refused(kind: str, severity: int) -> None:
    with pytest.raises(ValueError, match="one of gaussian noise"):
        corrupt(FLOWERS[0], kind, severity, 0)
