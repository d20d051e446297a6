"""`visionserve predict`: one photograph as a readable table, a folder of any size as CSV, JSON Lines or Parquet."""

import argparse
import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from visionserve.cli import exit_codes, image_files, options, records
from visionserve.cli.exit_codes import Stop
from visionserve.cli.parquet import ParquetTable
from visionserve.cli.predictors import Asker, Overlays, stop_unless_about_photograph, write
from visionserve.cli.records import Record
from visionserve.cli.resumable_table import Csv, JsonLines, Ledger
from visionserve.client import Answer, ResponseError
from visionserve.files import IMAGE_SUFFIXES

_BAR = 30
_STANDARD = "-"
_TOP_K = 5


class Rows(Protocol):
    """Where rows go; ``done`` holds the paths that are there already."""

    done: set[str]

    def add(self, record: Record) -> None:
        """Write a row; Stop when there is no room."""
        ...


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "source", nargs="+", metavar="PHOTO|FOLDER|-", help="photographs, one folder, or standard input"
    )
    options.add_answerer(parser)
    parser.add_argument("--top-k", type=options.count, metavar="K", help="labels per photograph (5, if there are)")
    parser.add_argument(
        "--explain",
        type=Path,
        metavar="OUT",
        help="also write the overlay: a PNG for a photograph, a folder for a folder",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help=".csv, .jsonl or .parquet, gone on with when it exists; - is JSON Lines, printed",
    )
    parser.add_argument(
        "--concurrency", type=options.count, default=8, metavar="N", help="requests at once, for a folder (8)"
    )
    parser.add_argument(
        "--workers", type=options.count, metavar="N", help="processes with --model, for a folder (as many as cores)"
    )


def run(chosen: argparse.Namespace) -> int:
    """Answer, and return the exit code."""
    sources = [Path(source) for source in chosen.source]
    for source in sources:
        if str(source) != _STANDARD:
            image_files.check(source)
    if not any(source.is_dir() for source in sources):
        return _tables(sources, chosen)
    if len(sources) > 1:
        raise Stop("Name one folder, or photographs: not both, nor two folders.")
    return _folder(sources[0], chosen)


def _tables(sources: list[Path], chosen: argparse.Namespace) -> int:
    """Print a table per photograph."""
    if chosen.output is not None:
        raise Stop("--output is for a folder; a photograph's answer is printed.")
    if chosen.explain is not None and len(sources) > 1:
        raise Stop("--explain writes the overlay of one photograph: name one.")
    refused = 0
    with options.asker(chosen, chosen.top_k) as asker:
        for source in sources:
            refused += not _printed(source, asker, chosen.explain)
    return exit_codes.REFUSED if refused else exit_codes.OK


def _printed(source: Path, asker: Asker, overlay: Path | None) -> bool:
    image = read(source)
    try:
        print(table(str(source), asker.predict(image)))
        if overlay is not None:
            write(overlay, asker.overlay(image))
    except ResponseError as error:
        stop_unless_about_photograph(error)
        print(f"{source}: {error}", file=sys.stderr)
        return False
    return True


def read(source: Path) -> bytes:
    """Return a photograph's bytes; "-" is standard input."""
    try:
        return sys.stdin.buffer.read() if str(source) == _STANDARD else source.read_bytes()
    except OSError as error:
        raise Stop(f"{source} cannot be read: {error.strerror}.") from error


def table(title: str, answer: Answer) -> str:
    """Return an answer as lines: a label, its probability and a bar for each prediction, then the novelty."""
    width = max(len(found.label) for found in answer.predictions)
    rows = [
        f"  {found.label:<{width}}  {found.probability:7.2%}  {'█' * round(found.probability * _BAR)}".rstrip()
        for found in answer.predictions
    ]
    novelty = f"  novelty {answer.novelty:.2f}  (0 very like the training photographs, 1 unlike all of them)"
    return "\n".join([title, *rows, novelty])


def _folder(folder: Path, chosen: argparse.Namespace) -> int:
    """Answer a folder's photographs that have no row yet; say what became of them."""
    total = sum(1 for _ in image_files.walk(folder, _say))
    if total == 0:
        raise Stop(f"{folder} holds no photographs ({', '.join(IMAGE_SUFFIXES)}).")
    overlays = Overlays(folder, chosen.explain) if chosen.explain is not None else None
    names = records.columns(chosen.top_k or _TOP_K)
    counts: Counter[str] = Counter()
    with _rows(chosen.output, names) as rows, options.asker(chosen, chosen.top_k, overlays) as asker:
        new = (path for path in image_files.walk(folder, lambda _: None) if _name(path, folder) not in rows.done)
        before = len(rows.done)
        try:
            with _progress(total, before) as advance:
                for outcome in asker.predict_many(new):
                    if isinstance(outcome.error, ResponseError):
                        stop_unless_about_photograph(outcome.error)
                    row = records.record(_name(Path(outcome.path), folder), outcome, names)
                    rows.add(row)
                    counts[str(row["error"] or "")] += 1
                    advance()
        finally:
            _say(_summary(counts, before, chosen.output))
        if isinstance(rows, ParquetTable) and counts:
            rows.complete()
    return exit_codes.OK


def _name(path: Path, folder: Path) -> str:
    """Return a photograph's name in a table: its path below the folder, so a run from elsewhere finds it again.

    Bytes of a name that are no text stand as escapes.
    """
    return path.relative_to(folder).as_posix().encode("utf-8", "backslashreplace").decode()


@contextlib.contextmanager
def _rows(output: str | None, names: list[str]) -> Iterator[Rows]:
    """Yield where rows go."""
    if output is None or output == _STANDARD:
        yield _Printed(JsonLines(names))
        return
    path = Path(output)
    rows: Ledger | ParquetTable
    match path.suffix.lower():
        case ".csv":
            rows = Ledger(path, Csv(names))
        case ".jsonl" | ".ndjson":
            rows = Ledger(path, JsonLines(names))
        case ".parquet":
            rows = ParquetTable(path, names)
        case _:
            raise Stop(f"--output must end in .csv, .jsonl or .parquet, or be -; not {output}.")
    with contextlib.closing(rows):
        yield rows


class _Printed:
    """Rows on standard output; they cannot be gone on with."""

    def __init__(self, form: JsonLines) -> None:
        self.done: set[str] = set()
        self._form = form

    def add(self, record: Record) -> None:
        """Print a row at once, for whoever reads along."""
        print(self._form.line(record), end="", flush=True)


@contextlib.contextmanager
def _progress(total: int, before: int) -> Iterator[Callable[[], object]]:
    """Yield a function that is called for every row; shows a bar on a terminal."""
    from tqdm import tqdm

    with tqdm(total=total, initial=before, unit=" photographs", disable=None, smoothing=0.1, file=sys.stderr) as bar:
        yield bar.update


def _summary(counts: Counter[str], before: int, output: str | None) -> str:
    answered, refused = counts[""], {code: count for code, count in counts.most_common() if code}
    parts = [f"{answered:,} answered"]
    if refused:
        listed = ", ".join(f"{count:,} {code}" for code, count in refused.items())
        parts.append(f"{sum(refused.values()):,} without an answer ({listed})")
    if before:
        parts.append(f"{before:,} had a row already")
    return "; ".join(parts) + (f"; rows in {output}" if output not in (None, _STANDARD) else "")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
