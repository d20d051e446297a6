"""The review list: images that may become training data, as a CSV file that a person edits.

`python -m monitoring corrections` writes it, `python -m training data add --reviewed` reads it:

    FOLDER/review.csv   file, use, label, predicted, probability, origin, request_id, sha256
    FOLDER/review.html  the same with the images, to look at
    FOLDER/images/      the images, named by their SHA-256

Only ``use`` and ``label`` are for the person: an image becomes training data when ``use`` says yes.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from html import escape
from pathlib import Path, PurePosixPath

from visionserve.errors import BundleError
from visionserve.files import write_text

FILE_NAME, PAGE, IMAGES = "review.csv", "review.html", "images"
_YES, _NO = ("yes", "y", "true", "1", "x"), ("no", "n", "false", "0")
_REQUIRED = ("file", "use", "label")


@dataclass(frozen=True)
class Entry:
    """One image of the list.

    Attributes:
        file: its path below the list's folder, with forward slashes.
        use: yes, no, or empty: nobody has looked at it.
        label: the right one, empty where nobody has said it.
        predicted: the model's label.
        probability: of that label, 0-1, as text.
        origin: where the image comes from: feedback or evaluation.
        request_id: of the answer.
        sha256: of the file when it was listed; empty in a list that was written by hand.
    """

    file: str
    use: str
    label: str
    predicted: str = ""
    probability: str = ""
    origin: str = ""
    request_id: str = ""
    sha256: str = ""

    @property
    def accepted(self) -> bool | None:
        """Whether it may be used; None when nobody has decided it."""
        word = self.use.strip().casefold()
        return True if word in _YES else False if word in _NO else None


HEADER = tuple(field.name for field in fields(Entry))


def write(folder: Path, entries: Sequence[Entry]) -> None:
    """Write review.csv and review.html."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([HEADER, *(astuple(entry) for entry in entries)])
    write_text(folder / FILE_NAME, text.getvalue())
    write_text(folder / PAGE, _page(entries))


def read(path: Path) -> list[Entry]:
    """Read a list as a person's spreadsheet saved it: with commas, semicolons or tabs, with or without a BOM.

    Raises:
        BundleError: it cannot be read, lacks a column, or a line is not a decision on a file below its folder.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} cannot be read as a CSV file in UTF-8: {error}") from error
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    missing = [name for name in _REQUIRED if name not in (rows.fieldnames or ())]
    if missing:
        raise BundleError(f"{path} has no column {missing[0]}: its first line must name {', '.join(_REQUIRED)}")
    entries = []
    for row in rows:
        entry = Entry(**{name: (row.get(name) or "").strip() for name in HEADER})
        _check(entry, f"{path}, line {rows.line_num}")
        entries.append(entry)
    return entries


def _check(entry: Entry, where: str) -> None:
    file = PurePosixPath(entry.file)
    if not entry.file or file.is_absolute() or ".." in file.parts:
        raise BundleError(f"{where}: {entry.file!r} is not a file below the folder of the list")
    if entry.use and entry.accepted is None:
        raise BundleError(f"{where}: use is yes, no or empty, not {entry.use!r}")
    if entry.accepted and not entry.label:
        raise BundleError(f"{where}: {entry.file} is to be used and has no label: write its label, or no")


def _page(entries: Sequence[Entry]) -> str:
    """Return the images with what is known of them; HTML without scripts."""
    figures = "".join(
        f'<figure><img src="{escape(entry.file)}" alt="" loading="lazy"><figcaption><b>{escape(entry.label or "?")}</b>'
        f"<br>predicted {escape(entry.predicted)} {escape(entry.probability)}<br>{escape(entry.origin)}, "
        f"use: {escape(entry.use or 'not decided')}<br><code>{escape(entry.file)}</code></figcaption></figure>\n"
        for entry in entries
    )
    style = (
        "body{font:14px sans-serif;display:flex;flex-wrap:wrap;gap:16px}figure{width:240px;margin:0}"
        "img{max-width:240px;max-height:240px}code{font-size:9px;word-break:break-all}"
    )
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>Review</title><style>{style}</style>"
    return f"{head}<p>Decide in {FILE_NAME}: use (yes or no) and label.</p>{figures}</html>\n"
