"""RunRecord: everything about one run, as it is stored; a report can be written from it at any time."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from loadtests.load.shapes import Stage
from loadtests.results.stats import RequestStats

FILE_NAME = "run.json"
Loop = Literal["open", "closed"]


@dataclass
class RunRecord:
    """One run.

    ``starts_s`` is when each stage began, in seconds since 1970, for those that were begun. ``sent`` says in words what
    was sent; ``accuracy`` is the share of images with known labels that got them, 0-1.
    """

    loop: Loop
    shape: str
    url: str
    arrivals: str
    stages: list[Stage]
    targets: dict[str, float]
    sent: str
    accuracy: float | None = None
    starts_s: list[float] = field(default_factory=list)
    interrupted: bool = False
    machine: str = ""
    stats: RequestStats = field(default_factory=RequestStats)

    def save(self, folder: Path) -> None:
        """Write it into a folder, all or nothing."""
        entries = {name: value for name, value in vars(self).items() if name not in ("stages", "stats")}
        stages = [asdict(stage) for stage in self.stages]
        partial = folder / (FILE_NAME + ".partial")
        partial.write_text(json.dumps({**entries, "stages": stages, "stats": self.stats.to_json()}), encoding="utf-8")
        partial.replace(folder / FILE_NAME)

    @classmethod
    def load(cls, folder: Path) -> "RunRecord":
        """Read what `save` wrote; ValueError when the folder holds no such file."""
        try:
            content: dict[str, Any] = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
            stages = [Stage(**stage) for stage in content.pop("stages")]
            return cls(stages=stages, stats=RequestStats.from_json(content.pop("stats")), **content)
        except (OSError, KeyError, TypeError) as error:
            raise ValueError(f"{folder} has no readable {FILE_NAME}: {error}") from error
