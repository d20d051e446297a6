"""Releases: which version of a model answers a request that names none, and what share of requests another one gets.

`releases.json` in the folder of the archives states it; `python -m launcher release` writes it, and launcher and
gateway follow it while they run. What it does not state: the highest version answers.

    {"birds": {"default": "1.0", "previous": "0.9", "candidate": "1.1", "share": 10, "shadow": 0}}

Imports nothing of the launcher: the gateway reads the file too.
"""

import json
import os
import re
import tempfile
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

FILE_NAME = "releases.json"
# As the gateway's paths take them.
_NAME, _VERSION = re.compile(r"[A-Za-z0-9._~-]{1,128}"), re.compile(r"[A-Za-z0-9._-]{1,32}")
_PARTS = re.compile(r"\d+|[^\d.]+")


class ReleaseError(Exception):
    """The file states what cannot be; the message is one sentence that says what to do."""


@dataclass(frozen=True)
class Release:
    """What holds for a model: ``default`` answers; ``candidate`` gets a percentage of its requests or copies of them.

    ``share`` percent of the requests are answered by the candidate; ``shadow`` percent are sent to it too, and its
    answers are only logged. ``previous`` was the default before.
    """

    default: str
    previous: str = ""
    candidate: str = ""
    share: int = 0
    shadow: int = 0

    def __post_init__(self) -> None:
        versions = [version for version in (self.previous, self.candidate) if version]
        if not all(isinstance(version, str) and _VERSION.fullmatch(version) for version in (self.default, *versions)):
            raise ReleaseError("a version has 1 to 32 letters, digits and ._-")
        percentages = (self.share, self.shadow)
        if not all(type(percentage) is int and 0 <= percentage <= 100 for percentage in percentages):
            raise ReleaseError("share and shadow are whole percentages, 0 to 100")
        if bool(self.candidate) != any(percentages) or all(percentages):
            raise ReleaseError("a candidate has a share or a shadow, one of them above 0")
        if self.candidate == self.default:
            raise ReleaseError("the candidate is another version than the default")


def load(path: Path) -> dict[str, Release]:
    """Return the releases by model; none without a file.

    Raises:
        ReleaseError: the file cannot be read, or states what cannot be.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ReleaseError(f"{path} cannot be read ({error}): correct it or delete it.") from error
    if not isinstance(content, dict) or not all(_NAME.fullmatch(name) for name in content):
        raise ReleaseError(f"{path} is not a JSON object with an entry for each model's name: correct it or delete it.")
    return {name: _read(path, name, entry) for name, entry in content.items()}


def _read(path: Path, name: str, entry: Any) -> Release:
    known = {field.name for field in fields(Release)}
    try:
        if not isinstance(entry, dict) or not entry.keys() <= known or "default" not in entry:
            raise ReleaseError(f"an entry has default, and of {', '.join(sorted(known))} what is needed")
        return Release(**entry)
    except ReleaseError as error:
        raise ReleaseError(f"{path}: {name}: {error}: correct it or delete it.") from error


def save(path: Path, releases: Mapping[str, Release]) -> None:
    """Replace the file at once: who reads it sees the old or the new one.

    Raises:
        ReleaseError: it cannot be written.
    """
    content = {name: {key: value for key, value in asdict(entry).items() if value} for name, entry in releases.items()}
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=".releases-", dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(json.dumps(content, indent=2) + "\n")
            os.fchmod(descriptor, 0o644)
        Path(temporary).replace(path)
    except OSError as error:
        with suppress(OSError):
            Path(temporary).unlink()
        raise ReleaseError(f"{path} cannot be written ({error.strerror}): let user {os.getuid()} do so.") from error


def state(path: Path) -> tuple[int, int, int] | None:
    """Return what changes whenever the file is replaced; None without one."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_ino, status.st_mtime_ns, status.st_size)


def default_version(versions: Collection[str], release: Release | None) -> str:
    """Return the version that answers: the stated one, whether it is there or not, else the highest."""
    return release.default if release is not None else max(versions, key=order)


def order(version: str) -> list[tuple[int, int, str]]:
    """Return a key by which versions rise: 1.9, 1.10rc1, 1.10, 1.10.1."""
    parts = [(2, int(part), "") if part.isdecimal() else (0, 0, part) for part in _PARTS.findall(version)]
    return [*parts, (1, 0, "")]
