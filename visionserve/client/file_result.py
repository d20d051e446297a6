"""FileResult: what became of one file among many."""

from dataclasses import dataclass
from os import PathLike

from visionserve.client.errors import ResponseError
from visionserve.client.results import Answer


@dataclass(frozen=True)
class FileResult:
    """A file's answer, or why there is none: the service refused it, or the file cannot be read."""

    path: PathLike[str]
    answer: Answer | None = None
    error: ResponseError | OSError | None = None
