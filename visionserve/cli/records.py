"""Records: what became of a photograph, as one flat row that tables and JSON Lines share.

path, label, probability, label_2, probability_2, ..., novelty, model, version, error, message
"""

from collections.abc import Sequence

from visionserve.client import FileResult, ResponseError

Value = str | float | None
Record = dict[str, Value]

UNREADABLE = "unreadable_file"


def columns(top_k: int) -> list[str]:
    """Return the names of the columns of a table with ``top_k`` labels a row."""
    ranked = [name for rank in range(1, top_k + 1) for name in _ranked(rank)]
    return ["path", *ranked, "novelty", "model", "version", "error", "message"]


def record(path: str, outcome: FileResult, names: Sequence[str]) -> Record:
    """Return an outcome as a row with exactly the columns ``names``; what it does not have is None."""
    found: Record = {"path": path}
    if outcome.answer is not None:
        for rank, prediction in enumerate(outcome.answer.predictions, start=1):
            label, probability = _ranked(rank)
            found |= {label: prediction.label, probability: prediction.probability}
        model = outcome.answer.model
        found |= {"novelty": outcome.answer.novelty, "model": model.name, "version": model.version}
    elif isinstance(outcome.error, ResponseError):
        found |= {"error": outcome.error.code, "message": outcome.error.message}
    elif outcome.error is not None:
        found |= {"error": UNREADABLE, "message": outcome.error.strerror or str(outcome.error)}
    return {name: found.get(name) for name in names}


def _ranked(rank: int) -> tuple[str, str]:
    return ("label", "probability") if rank == 1 else (f"label_{rank}", f"probability_{rank}")
