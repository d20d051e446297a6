"""`python -m monitoring corrections`: people's feedback and the mistakes of an evaluation as a list to be reviewed.

    feedback.jsonl + kept images  \
    mistakes.csv + their root     /  -> FOLDER/review.csv, review.html, images/  (training.data.review_list)

Each image is there once, under its hash. Nothing becomes training data here: a person decides in the list, then
`python -m training data add --reviewed` reads it. Running the command again keeps what was decided.
"""

import argparse
import csv
import hashlib
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monitoring import feedback
from training.data import review_list
from training.data.manifest import FILE_NAME as MANIFEST
from training.data.review_list import Entry
from training.markdown import counted
from visionserve.errors import BundleError
from visionserve.files import atomic_write

_COLUMNS = ("path", "label", "predicted", "probability", "request_id")
_SPLITS = {"train": "a training image", "val": "a validation image", "test": "a test image"}


@dataclass(frozen=True)
class Candidate:
    """An image that may be listed: its entry without a file, its name and bytes, or why there are none."""

    entry: Entry
    name: str
    data: bytes | None
    reason: str = ""


def run(args: argparse.Namespace) -> int:
    """Write the list; print what it holds, what was left out and why, and the next command."""
    if args.feedback is None and not args.mistakes:
        raise BundleError("name what is to be reviewed: --feedback FILE, --mistakes FILE, or both")
    candidates: list[Candidate] = []
    if args.feedback is not None:
        candidates += from_feedback(args.feedback, args.kept, confirmed=args.confirmed)
    for path in args.mistakes:
        candidates += from_mistakes(path, args.root)
    known = _known(args.bundle) if args.bundle is not None else {}
    entries, left_out = collect(candidates, known, args.output)
    review_list.write(args.output, entries)
    for reason, count in Counter(left_out).most_common():
        print(f"left out {count}: {reason}")
    undecided = sum(entry.accepted is None for entry in entries)
    path = args.output / review_list.FILE_NAME
    print(
        f"{path}: {counted(len(entries), 'image')}, {undecided} to be decided; "
        f"look at {path.with_name(review_list.PAGE)}"
    )
    print("these are copies, which no retention time deletes: delete the folder when it was reviewed and added")
    manifest = args.bundle / MANIFEST if args.bundle is not None else "model_store/NAME/manifest.csv"
    print(f"next: fill in `use` (yes or no) and `label` in {path}, then, with the layout and folder of your images:")
    print(
        "python -m training data add --data.source imagefolder --data.root IMAGES "
        f"--data.manifest {shlex.quote(str(manifest))} --reviewed {shlex.quote(str(path))} --output runs/next.csv"
    )
    return 0


def from_feedback(path: Path, kept: str | None, *, confirmed: bool) -> Iterator[Candidate]:
    """Yield the judged images of a file of feedback.

    Args:
        kept: folder or fsspec address of the kept images; None where none were kept.
        confirmed: also those whose prediction was judged right.
    """
    if not path.exists():
        raise BundleError(
            f"{path} does not exist: nobody has judged an answer on the page yet (leave --feedback out), or the page "
            "keeps its file elsewhere (UI_FEEDBACK)"
        )
    read = feedback.read(path)
    for _ in range(read.skipped):
        yield Candidate(Entry("", "", ""), "", None, "a line of the feedback that cannot be read")
    for judgement in read.judgements:
        entry = Entry(
            "",
            "",
            judgement.label or "",
            judgement.predicted,
            f"{judgement.probability:.4f}",
            "feedback",
            judgement.request_id,
        )
        if judgement.verdict == "right" and not confirmed:
            yield Candidate(entry, "", None, "feedback that the prediction is right (--confirmed lists it too)")
        elif judgement.image is None:
            yield Candidate(entry, "", None, "feedback without an image: the person did not let it be kept")
        elif kept is None:
            yield Candidate(entry, "", None, "feedback with an image: --kept says where images are kept")
        else:
            yield _kept(entry, kept, judgement.image)


def from_mistakes(path: Path, root: Path | None) -> Iterator[Candidate]:
    """Yield the images of a mistakes.csv of `monitoring evaluate`; ``root`` is the folder that was evaluated."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BundleError(f"{path} cannot be read as a CSV file: {error}") from error
    if rows and not set(_COLUMNS) <= rows[0].keys():
        raise BundleError(f"{path} is not a list of mistakes: its first line must name {', '.join(_COLUMNS)}")
    if rows and root is None:
        raise BundleError("--root names the folder of the images that were evaluated, where the mistakes' paths start")
    for row in rows:
        entry = Entry("", "", row["label"], row["predicted"], row["probability"], "evaluation", row["request_id"])
        file_path = Path(root or "", row["path"])
        try:
            yield Candidate(entry, file_path.name, file_path.read_bytes())
        except OSError:
            yield Candidate(entry, file_path.name, None, f"a mistake whose image is not below {root}")


def collect(candidates: Sequence[Candidate], known: dict[str, str], folder: Path) -> tuple[list[Entry], list[str]]:
    """Copy the images below ``folder`` and return the entries, old ones first as they are, and reasons of the others.

    Args:
        known: SHA-256 -> split of the images that the model was made with.
    """
    path = folder / review_list.FILE_NAME
    entries = {entry.sha256 or entry.file: entry for entry in (review_list.read(path) if path.is_file() else [])}
    before, left_out = set(entries), []
    for candidate in candidates:
        if candidate.data is None:
            left_out.append(candidate.reason)
            continue
        digest = hashlib.sha256(candidate.data).hexdigest()
        if digest in known:
            left_out.append(f"{_SPLITS[known[digest]]} of the model already")
        elif digest in entries:
            listed = "is in the list since an earlier start" if digest in before else "was named twice, listed once"
            left_out.append(f"the same image {listed}")
        else:
            file = f"{review_list.IMAGES}/{digest}{Path(candidate.name).suffix.lower()}"
            with atomic_write(folder / file) as unfinished:
                unfinished.write_bytes(candidate.data)
            values = {**vars(candidate.entry), "file": file, "sha256": digest}
            entries[digest] = Entry(**values)
    return list(entries.values()), left_out


def _kept(entry: Entry, address: str, name: str) -> Candidate:
    """Read a kept image; one that is not what its name says is left out."""
    system, root = _open(address)
    try:
        data = bytes(system.cat_file(f"{root.rstrip('/')}/{name}"))
    except FileNotFoundError:
        return Candidate(entry, name, None, "feedback whose image is gone: its retention time is over")
    except OSError as error:
        raise BundleError(f"{address} cannot be read: {error}") from error
    if hashlib.sha256(data).hexdigest() != Path(name).stem:
        return Candidate(entry, name, None, "feedback whose image is damaged: it does not have its name's SHA-256")
    return Candidate(entry, name, data)


def _open(address: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    try:
        system, root = url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise BundleError(f"{address} needs a package that is not installed, or is not an address: {error}") from error
    return system, str(root)


def _known(bundle: Path) -> dict[str, str]:
    path = bundle / MANIFEST
    if not path.is_file():
        print(f"{bundle} has no {MANIFEST}: whether its model has seen the images is not checked", file=sys.stderr)
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {row["sha256"]: row["split"] for row in csv.DictReader(file)}
