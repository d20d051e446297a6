"""Kept images: under their hash, by day, in a folder or at an fsspec address, deleted in time."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest

from ui.kept_images import KeptImages, NotKept, main
from ui.predictions import ImageFile
from ui.settings import Settings

NOON = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
IMAGE = ImageFile("Holiday of Ann.JPG", b"bytes")


def test_an_image_is_kept_under_its_hash_and_not_under_its_name(tmp_path: Path) -> None:
    name = KeptImages(str(tmp_path / "kept")).keep(IMAGE, NOON)
    assert name == f"2026-11-21/{IMAGE.digest}.jpg"
    assert (tmp_path / "kept" / name).read_bytes() == b"bytes"
    assert stat.S_IMODE((tmp_path / "kept" / name).stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("name", "suffix"), [("a.PNG", ".png"), ("a.heic", ".heic"), ("camera", ".jpg"), ("a.php", ".jpg")]
)
def test_only_an_images_suffix_is_kept(tmp_path: Path, name: str, suffix: str) -> None:
    assert Path(KeptImages(str(tmp_path)).keep(ImageFile(name, b"x"), NOON)).suffix == suffix


def test_no_image_is_there_for_longer_than_the_retention_time_and_none_goes_a_day_early(tmp_path: Path) -> None:
    kept = KeptImages(str(tmp_path), days=3)
    for hours in range(0, 24 * 6, 5):
        kept.keep(ImageFile("a.jpg", str(hours).encode()), NOON + timedelta(hours=hours))
    now = NOON + timedelta(hours=24 * 6)
    assert kept.expire(now) == 4
    remaining = sorted(path.name for path in tmp_path.iterdir())
    assert remaining == ["2026-11-25", "2026-11-26", "2026-11-27"]
    assert kept.expire(now) == 0


def test_what_is_not_a_days_folder_is_left_alone(tmp_path: Path) -> None:
    for name in ("notes", "20200101", "2020-13-01"):
        (tmp_path / name).mkdir()
    (tmp_path / "readme.txt").touch()
    assert KeptImages(str(tmp_path), 1).expire(NOON) == 0
    assert len(list(tmp_path.iterdir())) == 4


def test_a_folder_that_is_not_there_yet_has_nothing_to_delete(tmp_path: Path) -> None:
    assert KeptImages(str(tmp_path / "new"), 1).expire(NOON) == 0


def test_an_address_of_fsspec_works_as_a_folder_does() -> None:
    kept = KeptImages("memory://bucket/feedback", days=1)
    name = kept.keep(IMAGE, NOON)
    assert fsspec.filesystem("memory").cat_file(f"/bucket/feedback/{name}") == b"bytes"
    assert kept.expire(NOON + timedelta(days=1)) == 1
    assert not fsspec.filesystem("memory").exists(f"/bucket/feedback/{name}")


def test_an_address_whose_package_is_missing_says_so() -> None:
    with pytest.raises(NotKept, match="package that is not installed"):
        KeptImages("nonsense://bucket").keep(IMAGE, NOON)


def test_the_command_deletes_without_a_visitor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    KeptImages(str(tmp_path)).keep(IMAGE, NOON - timedelta(days=9999))
    assert main([str(tmp_path), "30"]) == 0
    assert "images of 1 days deleted" in capsys.readouterr().out
    assert main(["nonsense://x", "30"]) == 1


def test_images_are_not_kept_unless_an_address_is_set() -> None:
    assert Settings.read({}).kept is None
    assert Settings.read({"UI_FEEDBACK_IMAGES": "", "UI_FEEDBACK_IMAGES_DAYS": "7"}).kept is None
    assert Settings.read({"UI_FEEDBACK_IMAGES": "s3://b/c"}).kept == KeptImages("s3://b/c", 90)
    assert Settings.read({"UI_FEEDBACK_IMAGES": "kept", "UI_FEEDBACK_IMAGES_DAYS": "7"}).kept == KeptImages("kept", 7)


@pytest.mark.parametrize("days", ["0", "-1", "x", "1.5", "999999"])
def test_a_retention_time_that_is_none_is_refused(days: str) -> None:
    with pytest.raises(ValueError, match="number of days"):
        Settings.read({"UI_FEEDBACK_IMAGES": "kept", "UI_FEEDBACK_IMAGES_DAYS": days})
