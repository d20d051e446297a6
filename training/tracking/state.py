"""<run>/tracking.json: which run of which tracker belongs to a run's folder, and how far it has been logged."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from training.recipe import TrackerName, Tracking
from visionserve.errors import BundleError
from visionserve.files import write_text

FILE_NAME = "tracking.json"


@dataclass
class State:
    """What a later process needs to go on in the same tracker's run.

    Attributes:
        uri: as the recipe gave it; it never holds a password.
        id: what the tracker calls the run; empty before it has begun.
        sent: how many times something was logged.
        logged: the last optimizer step of each curve and picture.
    """

    tracker: TrackerName
    uri: str | None = None
    id: str = ""
    sent: int = 0
    logged: dict[str, int] = field(default_factory=dict)

    @property
    def last(self) -> int:
        """The last optimizer step of all."""
        return max(self.logged.values(), default=0)

    def belongs_to(self, tracking: Tracking) -> bool:
        """Whether this run is in the tracker that ``tracking`` means."""
        return (self.tracker, self.uri) == (tracking.tracker, tracking.uri)

    def save(self, folder: Path) -> None:
        """Write the file, whole or not at all."""
        write_text(folder / FILE_NAME, json.dumps(asdict(self), indent=1) + "\n")


def read(folder: Path) -> State | None:
    """Return the state of the run in ``folder``; None when it was not tracked."""
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    try:
        return State(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise BundleError(f"{path} cannot be read ({error}): delete it, and the tracker begins another run") from error
