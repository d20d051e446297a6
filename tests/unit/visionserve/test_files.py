import os
import stat
import time
from pathlib import Path

import pytest

from loadtests.load import images
from visionserve.files import (
    ABANDONED_S,
    IMAGE_SUFFIXES,
    atomic_write,
    images_below,
    is_image,
    is_inside,
    read_regular,
    write_text,
)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(KeyError), atomic_write(tmp_path / "a.txt") as unfinished:
        unfinished.write_text("ne")
        raise KeyError
    assert (tmp_path / "a.txt").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_files_of_killed_processes_are_removed_and_those_of_running_ones_are_not(tmp_path: Path) -> None:
    dead, alive = (tmp_path / f".unfinished-{number}-a.txt" for number in (1, 2))
    for file in (dead, alive):
        file.touch()
    os.utime(dead, (time.time() - 2 * ABANDONED_S,) * 2)
    write_text(tmp_path / "a.txt", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == [alive.name, "a.txt"]


def test_what_is_no_regular_file_is_refused_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", tmp_path / "link.jpg", Path("/dev/zero"), tmp_path):
        with pytest.raises(OSError, match=r"Not a regular file|Is a directory"):
            read_regular(path)
    with pytest.raises(ValueError, match="contains no images"):
        images.read_images(tmp_path)  # the load tests' own
    (tmp_path / "a.jpg").write_bytes(b"image")
    assert read_regular(tmp_path / "a.jpg") == images.read_images(tmp_path)[0].body == b"image"


def test_a_secret_is_never_readable_by_others(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "keys", 0o600) as unfinished:
        assert stat.S_IMODE(unfinished.stat().st_mode) == 0o600
        unfinished.write_text("secret")
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600


def test_a_missing_folder_is_made_and_line_ends_are_kept(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a.txt", "one\r\ntwo\n")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"one\r\ntwo\n"


@pytest.mark.parametrize(("name", "expected"), [("a.JPG", True), ("b.jpe", True), ("notes.txt", False), ("jpg", False)])
def test_an_image_is_known_by_its_name(name: str, expected: bool) -> None:
    assert is_image(name) is expected
    assert is_image(Path("folder.png") / name) is expected


def test_the_load_test_takes_the_same_files() -> None:
    assert images.IMAGE_SUFFIXES == IMAGE_SUFFIXES


def test_images_below_a_folder_are_its_visible_files_and_what_cannot_be_read_is_among_them(tmp_path: Path) -> None:
    for name in ("b.jpg", "a/c.PNG", "a/note.txt", "._b.jpg", ".thumbnails/d.jpg", "album.jpg/e.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in images_below(tmp_path)] == [
        "a/c.PNG",
        "album.jpg/e.jpg",
        "b.jpg",
        "pipe.jpg",
    ]


def test_a_path_inside_a_folder_is_known_through_links_and_dots(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "link").symlink_to("images")
    assert is_inside(tmp_path / "link" / "report", tmp_path / "images")
    assert is_inside(tmp_path / "images" / ".", tmp_path / "images")
    assert not is_inside(tmp_path / "images" / ".." / "report", tmp_path / "images")
