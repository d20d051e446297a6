"""The image files that a command is given, listed one by one, so that a folder may be of any size."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from visionserve.cli.exit_codes import Stop
from visionserve.client.http_messages import content
from visionserve.files import LARGEST_IMAGE, is_image

STANDARD_INPUT = "-"


def walk(folder: Path, report: Callable[[str], None]) -> Iterator[Path]:
    """Yield every image file below a folder; hidden files and linked folders are left out.

    Args:
        report: is called with a sentence for each folder that cannot be read; those are skipped.
    """
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            with os.scandir(current) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
                    elif is_image(entry.name):
                        yield Path(entry.path)
        except OSError as error:
            report(f"{printable(current)} cannot be read and is left out: {error.strerror}.")


def check(source: Path) -> None:
    """Stop for what does not exist, is neither file nor folder, or may not be read."""
    if str(source) == STANDARD_INPUT:
        return
    try:
        usable = source.is_dir() or source.is_file()
        if source.is_dir():
            os.scandir(source).close()
        elif usable:
            source.open("rb").close()
    except OSError as error:
        raise Stop(f"{printable(source)} cannot be read: {error.strerror}.") from error
    if not source.exists():
        raise Stop(f"{printable(source)} does not exist.")
    if not usable:
        raise Stop(f"{printable(source)} is neither a file nor a folder.")


def check_output(output: Path, sources: list[Path]) -> None:
    """Stop if an output file is one of the images."""
    if any(str(source) != STANDARD_INPUT and output.exists() and output.samefile(source) for source in sources):
        raise Stop(f"{printable(output)} is the image itself, which would be overwritten: choose another file.")


def read(source: Path) -> bytes:
    """Return an image's bytes; "-" is standard input. ResponseError if a file is empty, Stop if it cannot be read."""
    if str(source) == STANDARD_INPUT:
        data = sys.stdin.buffer.read(LARGEST_IMAGE + 1)
        if not data:
            raise Stop("Standard input is empty.")
        if len(data) > LARGEST_IMAGE:
            raise Stop(f"Standard input is larger than {LARGEST_IMAGE >> 20} MiB.")
        return data
    try:
        return content(source)
    except OSError as error:
        raise Stop(f"{printable(source)} cannot be read: {error.strerror}.") from error


def printable(name: Path | str) -> str:
    """Return a file's name as a terminal can show it: control characters and bytes that are not text as escapes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode()
        for character in str(name)
    )
