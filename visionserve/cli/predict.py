"""`visionserve predict`: an image as a readable table, a folder of any size as CSV, JSON Lines or Parquet."""

import argparse
import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from visionserve.cli import exit_codes, image_files, options
from visionserve.cli.exit_codes import Stop
from visionserve.cli.parquet import ParquetTable
from visionserve.cli.predictors import Overlays, Predictor, stop_unless_about_image, write
from visionserve.cli.resumable_table import Csv, JsonLines, Record, ResumableTable, columns, record
from visionserve.client import Answer, ResponseError
from visionserve.files import IMAGE_SUFFIXES

_BAR = 30
_STANDARD = "-"
_TOP_K = 5


class Rows(Protocol):
    """A table of rows; ``done`` holds the paths that have a row already."""

    done: set[str]

    def add(self, record: Record) -> None:
        """Write a row; Stop when the disk is full."""
        ...


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "source", nargs="+", metavar="IMAGE|FOLDER|-", help="image files, one folder, or standard input"
    )
    options.add_predictor(parser)
    parser.add_argument("--top-k", type=options.count, metavar="K", help="labels per image (5, or all if fewer)")
    parser.add_argument(
        "--explain",
        type=Path,
        metavar="OUT",
        help="also write the heatmap over the image: a PNG for an image, a folder for a folder",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help=".csv, .jsonl or .parquet, continued if it exists; - prints JSON Lines",
    )
    parser.add_argument(
        "--concurrency", type=options.count, default=8, metavar="N", help="requests at once, for a folder (8)"
    )
    parser.add_argument(
        "--workers", type=options.count, metavar="N", help="processes with --model, for a folder (as many as cores)"
    )


def run(args: argparse.Namespace) -> int:
    """Classify, and return the exit code."""
    sources = [Path(source) for source in args.source]
    for source in sources:
        if str(source) != _STANDARD:
            image_files.check(source)
    if not any(source.is_dir() for source in sources):
        return _tables(sources, args)
    if len(sources) > 1:
        raise Stop("Name one folder, or image files: not both, nor two folders.")
    return _folder(sources[0], args)


def _tables(sources: list[Path], args: argparse.Namespace) -> int:
    """Print a table per image."""
    if args.output is not None:
        raise Stop("--output is for a folder; the answer about an image file is printed.")
    if args.explain is not None and len(sources) > 1:
        raise Stop("--explain writes the overlay of one image: name one.")
    refused = 0
    with options.predictor(args, args.top_k) as predictor:
        for source in sources:
            refused += not _printed(source, predictor, args.explain)
    return exit_codes.REFUSED if refused else exit_codes.OK


def _printed(source: Path, predictor: Predictor, overlay: Path | None) -> bool:
    image = read(source)
    try:
        print(table(str(source), predictor.predict(image)))
        if overlay is not None:
            write(overlay, predictor.overlay(image))
    except ResponseError as error:
        stop_unless_about_image(error)
        print(f"{source}: {error}", file=sys.stderr)
        return False
    return True


def read(source: Path) -> bytes:
    """Return an image's bytes; "-" is standard input."""
    try:
        return sys.stdin.buffer.read() if str(source) == _STANDARD else source.read_bytes()
    except OSError as error:
        raise Stop(f"{source} cannot be read: {error.strerror}.") from error


def table(title: str, answer: Answer) -> str:
    """Return an answer as lines: a label, its probability and a bar for each prediction, then the novelty."""
    width = max(len(entry.label) for entry in answer.predictions)
    rows = [
        f"  {label:<{width}}  {probability:7.2%}  {'█' * round(probability * _BAR)}".rstrip()
        for label, probability in ((entry.label, entry.probability) for entry in answer.predictions)
    ]
    novelty = f"  novelty {answer.novelty:.2f}  (0 very like the training images, 1 unlike all of them)"
    return "\n".join([title, *rows, novelty])


def _folder(folder: Path, args: argparse.Namespace) -> int:
    """Classify the images of a folder that have no row yet; report how many were and were not."""
    total = sum(1 for _ in image_files.walk(folder, _report))
    if total == 0:
        raise Stop(f"{folder} contains no image files ({', '.join(IMAGE_SUFFIXES)}).")
    overlays = Overlays(folder, args.explain) if args.explain is not None else None
    names = columns(args.top_k or _TOP_K)
    counts: Counter[str] = Counter()
    with _rows(args.output, names) as rows, options.predictor(args, args.top_k, overlays) as predictor:
        new = (path for path in image_files.walk(folder, lambda _: None) if _name(path, folder) not in rows.done)
        before = len(rows.done)
        try:
            with _progress(total, before) as advance:
                for result in predictor.predict_many(new):
                    if isinstance(result.error, ResponseError):
                        stop_unless_about_image(result.error)
                    row = record(_name(Path(result.path), folder), result, names)
                    rows.add(row)
                    counts[str(row["error"] or "")] += 1
                    advance()
        finally:
            _report(_summary(counts, before, args.output))
        if isinstance(rows, ParquetTable) and counts:
            rows.complete()
    return exit_codes.OK


def _name(path: Path, folder: Path) -> str:
    """Return an image's name in a table: its path below the folder, so that a run from elsewhere matches it.

    Bytes that are not UTF-8 are written as escapes.
    """
    return path.relative_to(folder).as_posix().encode("utf-8", "backslashreplace").decode()


@contextlib.contextmanager
def _rows(output: str | None, names: list[str]) -> Iterator[Rows]:
    """Yield the table to write to."""
    if output is None or output == _STANDARD:
        yield _Printed(JsonLines(names))
        return
    path = Path(output)
    rows: ResumableTable | ParquetTable
    match path.suffix.lower():
        case ".csv":
            rows = ResumableTable(path, Csv(names))
        case ".jsonl" | ".ndjson":
            rows = ResumableTable(path, JsonLines(names))
        case ".parquet":
            rows = ParquetTable(path, names)
        case _:
            raise Stop(f"--output must end in .csv, .jsonl or .parquet, or be -; not {output}.")
    with contextlib.closing(rows):
        yield rows


class _Printed:
    """Rows on standard output; they cannot be continued."""

    def __init__(self, form: JsonLines) -> None:
        self.done: set[str] = set()
        self._form = form

    def add(self, record: Record) -> None:
        """Print a row at once, so that a pipe can follow."""
        print(self._form.line(record), end="", flush=True)


@contextlib.contextmanager
def _progress(total: int, before: int) -> Iterator[Callable[[], object]]:
    """Yield a function to call for every row; shows a bar on a terminal."""
    from tqdm import tqdm

    with tqdm(total=total, initial=before, unit=" images", disable=None, smoothing=0.1, file=sys.stderr) as bar:
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


def _report(text: str) -> None:
    print(text, file=sys.stderr)
