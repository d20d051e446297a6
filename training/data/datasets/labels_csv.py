"""A folder of images with a CSV file that labels them: a line per image, columns of any name.

    file,label,index,accept,source
    a/1.jpg,rose,73,73,shop.example
    2.jpg,garden dahlia,58,58;59,me

`file` and one of `label` and `index` are needed. `accept` holds further labels that count as right; `source` what an
image comes from, by which `--data.split by-group` divides; `split` train, val or test.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path, PurePosixPath

from training.data.datasets import SPLITS, Collection, ImageFile, Split
from training.data.datasets.names import label_of, split_of
from training.recipe import LabelsCsv
from visionserve.errors import BundleError
from visionserve.files import is_image, write_text

DEFAULT = LabelsCsv()
_COLUMNS = ("file", "label", "index", "accept", "group", "split")


def collect(
    root: Path, csv: LabelsCsv = DEFAULT, labels: Sequence[str] | None = None, *, others: bool = False
) -> Collection:
    """Index the images that the CSV file lists.

    Args:
        csv: the file's name and columns.
        labels: in the order that positions count in; None takes them from the file, in the order of its positions
            where it has them, else sorted by name.
        others: take names that are none of the labels too, instead of refusing the file.

    Raises:
        BundleError: the file or an image is missing, or a line cannot be right; the message names it.
    """
    table = root / csv.name
    lines = _read(table, csv)
    names = dict(enumerate(labels)) if labels is not None else _labels(lines, table, csv)
    if others:
        further = {entry.strip() for _, line in lines for entry in (line.get("label", ""), *_accepted(line))}
        further = {entry for entry in further if entry and not entry.isdecimal()} - set(names.values())
        names |= dict(enumerate(sorted(further), max(names) + 1))
    images: dict[str, ImageFile] = {}
    for number, line in lines:
        where = f"{table}: line {number}"
        path = _path(root, csv.folder, line["file"], where)
        if path in images:
            raise BundleError(f"{where} has {line['file']} again: a file has one line")
        label = _named(line.get("label") or line.get("index", ""), names, where)
        position = line.get("index", "")
        if labels is not None and label in labels and position not in ("", str(labels.index(label))):
            raise BundleError(f"{where} has {label!r} at {position}; its position is {labels.index(label)}")
        also = {_named(entry, names, where) for entry in _accepted(line)}
        accept = tuple(sorted(also - {label}))
        images[path] = ImageFile(path, label, _split(line.get("split", ""), where), accept, line.get("group", ""))
    used = {image.label for image in images.values()}
    order = tuple(label for label in names.values() if label in used)
    if labels is None and len(order) < 2:
        raise BundleError(f"{table} has one label only, {order[0]!r}: a network tells two or more apart")
    return Collection(root, order, tuple(images.values()), _others(root / csv.folder, root, images))


def append(root: Path, csv_: LabelsCsv, lines: Sequence[tuple[str, str]], group: str) -> None:
    """Add lines for (path below the root, label) to the file, in its own columns; ``group`` is what they come from.

    Raises:
        BundleError: the file has positions, of which new images have none, or gives no label.
    """
    table = root / csv_.name
    text = table.read_text(encoding="utf-8-sig")
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    header = [name.strip() for name in next(csv.reader([first.rstrip("\r")], delimiter=delimiter))]
    if csv_.label not in header or csv_.index in header:
        raise BundleError(f"{table} has positions of labels: add the lines of new images to it by hand")
    rows = io.StringIO(newline="")
    writer = csv.DictWriter(rows, header, delimiter=delimiter, lineterminator="\n", restval="")
    for path, label in lines:
        name = PurePosixPath(path).relative_to(csv_.folder).as_posix() if csv_.folder else path
        known = {csv_.file: name, csv_.label: label, csv_.group: group}
        writer.writerow({column: value for column, value in known.items() if column in header})
    write_text(table, text + ("" if text.endswith("\n") else "\n") + rows.getvalue())


def find(path: Path, csv: LabelsCsv | None = None) -> LabelsCsv | None:
    """Return the settings of a CSV file, or of a folder that holds one; None for a folder without it."""
    settings = csv or DEFAULT
    if path.is_dir():
        return settings if (path / settings.name).is_file() else None
    return replace(settings, name=path.name) if path.suffix.lower() in (".csv", ".tsv") else None


def _read(table: Path, columns: LabelsCsv) -> list[tuple[int, dict[str, str]]]:
    """Return (line number, role of a column -> its entry) for every line; columns that are not there are left out."""
    if not table.is_file():
        raise BundleError(f"{table} does not exist: give the name of the labels' file with --data.csv.name")
    try:
        text = table.read_text(encoding="utf-8-sig")
        first = text.split("\n", 1)[0]
        reader = csv.DictReader(io.StringIO(text), delimiter=max(",;\t", key=first.count), strict=True)
        header = [name.strip() for name in reader.fieldnames or ()]
        reader.fieldnames = header
        rows = [(reader.line_num, row) for row in reader]
    except (ValueError, csv.Error) as error:
        raise BundleError(f"{table} is not a CSV file in UTF-8: {error}") from error
    column = {role: getattr(columns, role) for role in _COLUMNS}
    absent = [role for role in _COLUMNS if column[role] not in header]
    changed = {entry.name for entry in fields(columns) if getattr(columns, entry.name) != entry.default}
    needed = [role for role in absent if role == "file" or role in changed]
    if not needed and "label" in absent and "index" in absent:
        needed = ["label"]
    if needed:
        if not any(header):
            raise BundleError(f"{table} is empty: its first line names the columns")
        raise BundleError(
            f"{table} has no column {column[needed[0]]!r} but {', '.join(header)}: give its name by the source's "
            f"entry csv.{needed[0]} (--data.csv.{needed[0]} COLUMN)"
        )
    if not rows:
        raise BundleError(f"{table} lists no images")
    roles = [role for role in _COLUMNS if role not in absent]
    twice = next((column[role] for role in roles if header.count(column[role]) > 1), None)
    if twice is not None:
        raise BundleError(f"{table} has several columns {twice!r}: which one counts is not known")
    longer = next((number for number, row in rows if any(entry.strip() for entry in row.get(None) or ())), None)
    if longer is not None:
        raise BundleError(
            f"{table}: line {longer} has more entries than there are columns: an entry with a comma needs quotes"
        )
    lines = [(number, {role: _entry(role, row[column[role]] or "") for role in roles}) for number, row in rows]
    for number, line in lines:
        if not (line.get("label") or line.get("index")):
            raise BundleError(f"{table}: line {number} has no label for {line['file']!r}: add it or remove the line")
    return lines


def _entry(role: str, text: str) -> str:
    return label_of(text) if role in ("label", "accept") else text.strip()


def _labels(lines: Sequence[tuple[int, Mapping[str, str]]], table: Path, columns: LabelsCsv) -> dict[int, str]:
    """Return position -> label as the file itself names them, by rising position."""
    first = lines[0][1]
    if "label" not in first:
        raise BundleError(f"{table} has positions but no names of labels: add a column {columns.label!r}")
    if "index" not in first:
        return dict(enumerate(sorted({line["label"] for _, line in lines})))
    labels: dict[int, str] = {}
    positions: dict[str, str] = {}
    for number, line in lines:
        label, position = line["label"], line["index"]
        usable = position.isdecimal() and labels.setdefault(int(position), label) == label
        if not usable or positions.setdefault(label, position) != position:
            raise BundleError(f"{table}: line {number} has {label!r} at {position!r}: each label has one position")
    return dict(sorted(labels.items()))


def _accepted(line: Mapping[str, str]) -> list[str]:
    """Return the names or positions of the further labels that count as right."""
    return [entry for entry in line.get("accept", "").split(";") if entry.strip()]


def _named(entry: str, names: Mapping[int, str], where: str) -> str:
    """Return the label that an entry names, or whose position it is."""
    entry = entry.strip()
    if entry in names.values():
        return entry
    if entry.isdecimal() and int(entry) in names:
        return names[int(entry)]
    some = ", ".join([*names.values()][:3])
    raise BundleError(f"{where} has {entry!r}, which is none of the {len(names)} labels ({some}, ...)")


def _split(name: str, where: str) -> Split | None:
    if not name:
        return None
    split = split_of(name)
    if split is None:
        raise BundleError(f"{where} has the split {name!r}: it is one of {', '.join(SPLITS)}")
    return split


def _path(root: Path, folder: str, name: str, where: str) -> str:
    """Return an image's path below the root; a BundleError when it is not there."""
    inside = PurePosixPath(folder, name.replace("\\", "/"))
    if inside.is_relative_to(root.absolute()):
        inside = inside.relative_to(root.absolute())
    if not name or inside.is_absolute() or ".." in inside.parts:
        raise BundleError(f"{where} has the file {name!r}: it must lie below {root / folder}")
    for candidate in (inside, inside.with_name(f"{inside.name}.jpg")):
        if (root / candidate).is_file():
            return candidate.as_posix()
    raise BundleError(f"{where} has {name}, which is not in {root / folder}")


def _others(folder: Path, root: Path, images: Mapping[str, ImageFile]) -> tuple[str, ...]:
    """Return the images in the folder that the file does not list."""
    files = (path.relative_to(root).as_posix() for path in folder.rglob("*") if path.is_file() and is_image(path))
    return tuple(sorted(path for path in files if path not in images))
