"""Downloads: a published file arrives whole and checked, or not at all; what arrived before a cut is not sent again.

address -> NAME.part (grows, survives a cut) -> checksum -> NAME -> unpacked beside it -> moved into place
"""

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import requests
from tqdm import tqdm

from visionserve.errors import BundleError

TIMEOUT_S = (10, 60)  # to connect, and between two pieces
PIECE = 1 << 16  # bytes; what is lost at most when a connection is cut
DONE = ".downloaded"  # its presence says that everything below a folder arrived, was checked and unpacked
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Archive:
    """A published file: its address and the checksum that is published with it, 32 hexadecimal digits of MD5."""

    url: str
    md5: str

    @property
    def name(self) -> str:
        """The file's own name."""
        return PurePosixPath(urlsplit(self.url).path).name


def obtain(what: str, archives: Sequence[Archive], folder: Path) -> Path:
    """Have the files of the data set called ``what`` below ``folder``, archives unpacked, and return the folder.

    Raises:
        BundleError: no network, the address does not answer, or what arrives has another checksum.
    """
    if (folder / DONE).is_file():
        return folder
    for archive in archives:
        try:
            file = fetch(archive, folder)
            if file.suffix in (".tgz", ".tar", ".gz", ".zip"):
                unpack(file, folder)
        except (requests.RequestException, OSError, shutil.ReadError) as error:
            raise BundleError(unreachable(what, _reason(error), archive.url)) from error
    (folder / DONE).touch()
    for archive in archives:
        if archive.name.endswith((".tgz", ".tar", ".gz", ".zip")):
            (folder / archive.name).unlink()
    return folder


def unreachable(what: str, reason: str, url: str) -> str:
    """Return the sentence for a data set that cannot be downloaded."""
    return f"{what} cannot be downloaded ({reason}); fetch {url} elsewhere and give its folder as --data.root"


def fetch(archive: Archive, folder: Path) -> Path:
    """Download one file to ``folder``, going on where an earlier try was cut, and return its place.

    Raises:
        requests.RequestException: the address does not answer, or the connection is cut again and again.
        OSError: the folder cannot be written, or the checksum is wrong: what arrived is thrown away.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / archive.name
    part = file.with_name(f"{file.name}.part")
    if file.is_file() and _md5(file) == archive.md5:
        return file
    while not _receive(archive.url, part):
        _log.info("%s: the connection was cut after %d bytes; going on", archive.name, part.stat().st_size)
    if _md5(part) != archive.md5:
        part.unlink()
        raise OSError(f"what arrived is not the published file: its MD5 is not {archive.md5}")
    return part.replace(file)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a tar or zip file into ``folder``; its entries appear there when all of them are unpacked.

    Nothing is written outside the folder: tar members with such names are refused (PEP 706), zip members left out.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as unpacked:
        kept_inside = {"filter": "data"} if archive.suffix != ".zip" else {}
        shutil.unpack_archive(archive, unpacked, **kept_inside)  # type: ignore[arg-type]  # the stub knows no filter
        for entry in Path(unpacked).iterdir():
            target = folder / entry.name
            if target.is_dir():
                shutil.rmtree(target)
            entry.replace(target)


def _receive(url: str, part: Path) -> bool:
    """Append to ``part`` what is missing of the file behind ``url``; False: cut again, but some more of it came."""
    have = part.stat().st_size if part.is_file() else 0
    try:
        _append(url, part, have)
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
        if not part.is_file() or part.stat().st_size <= have:
            raise
        return False
    return True


def _append(url: str, part: Path, have: int) -> None:
    headers = {"Range": f"bytes={have}-", "Accept-Encoding": "identity"}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
        if have and answer.status_code == requests.codes.requested_range_not_satisfiable:
            return  # all of it is here; the checksum says whether it is right
        answer.raise_for_status()
        if answer.status_code != requests.codes.partial_content:
            have = 0  # a server that knows no ranges sends it all again
        length = answer.headers.get("Content-Length")
        bar = tqdm(
            desc=part.stem, total=have + int(length) if length else None, initial=have, unit="B", unit_scale=True
        )
        with part.open("ab" if have else "wb") as file, bar:
            for piece in answer.iter_content(PIECE):
                file.write(piece)
                bar.update(len(piece))


def _md5(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _reason(error: Exception) -> str:
    """Return what went wrong in a few words: requests' own messages are chains of objects."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server answers {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "the server does not answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection is cut again and again"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return str(error)
