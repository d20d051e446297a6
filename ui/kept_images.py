"""Images that people let the page keep with their feedback: below a folder or an fsspec address (S3, ...), by day.

    ADDRESS/2026-11-29/<sha256>.jpg     the bytes as they were sent

Kept only where the operator sets UI_FEEDBACK_IMAGES and the person ticks the box. A day's folder is deleted as a whole
before its first image is older than the retention time: by the page, and by `python -m ui.kept_images ADDRESS DAYS`
where nobody visits it.
"""

import argparse
import sys
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from ui.predictions import ImageFile
from visionserve.files import IMAGE_SUFFIXES

DAYS = 90


class NotKept(Exception):
    """An image could not be kept, or an expired one not deleted; the message says why."""


@dataclass(frozen=True)
class KeptImages:
    """Where images are kept, and for how many days at most."""

    address: str
    days: int = DAYS

    def keep(self, image: ImageFile, now: datetime | None = None) -> str:
        """Write an image and return its path below the address.

        Raises:
            NotKept: it cannot be written there.
        """
        day = _today(now).isoformat()
        suffix = Path(image.name).suffix.lower()
        name = f"{day}/{image.digest}{suffix if suffix in IMAGE_SUFFIXES else '.jpg'}"
        system, root = _open(self.address)
        try:
            system.makedirs(f"{root}/{day}", exist_ok=True)
            system.pipe_file(f"{root}/{name}", image.data)
            if "file" in system.protocol:
                Path(root, name).chmod(0o640)  # as the file of feedback
        except Exception as error:  # a store's own library raises its own errors
            raise NotKept(f"{self.address} cannot be written ({error})") from error
        return name

    def expire(self, now: datetime | None = None) -> int:
        """Delete the folders of days that are over, and return how many.

        Raises:
            NotKept: the address cannot be listed or changed.
        """
        system, root = _open(self.address)
        latest = _today(now) - timedelta(days=self.days)
        expired = 0
        try:
            system.invalidate_cache()
            for path in system.ls(root, detail=False) if system.exists(root) else []:
                day = _day(str(path).rstrip("/").rsplit("/", 1)[-1])
                if day is not None and day <= latest:
                    system.rm(path, recursive=True)
                    expired += 1
        except Exception as error:  # as above
            raise NotKept(
                f"the images of {self.address} that are older than {self.days} days remain: {error}"
            ) from error
        return expired


def _today(now: datetime | None) -> date:
    return (now or datetime.now(UTC)).astimezone(UTC).date()


def _day(name: str) -> date | None:
    try:
        return date.fromisoformat(name) if len(name) == 10 else None
    except ValueError:
        return None


def _open(address: str) -> tuple[Any, str]:
    """Return the file system of an address and the path in it."""
    try:
        from fsspec.core import url_to_fs  # needed only where images are kept

        system, root = url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise NotKept(f"{address} needs a package that is not installed, or is not an address: {error}") from error
    return system, str(root).rstrip("/")


def main(arguments: list[str] | None = None) -> int:
    """Delete what is older than the retention time; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m ui.kept_images", description="Delete expired images of feedback.")
    parser.add_argument("address", help="UI_FEEDBACK_IMAGES of the page")
    parser.add_argument("days", type=int, help="UI_FEEDBACK_IMAGES_DAYS of the page")
    options = parser.parse_args(arguments)
    try:
        expired = KeptImages(options.address, options.days).expire()
    except NotKept as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 1
    sys.stdout.write(f"{options.address}: images of {expired} days deleted\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
