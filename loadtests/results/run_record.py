"""RunRecord: everything about one run, as it is stored: reports can be made anew from it."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from loadtests.load.shapes import Stage
from loadtests.results.stats import Ledger

FILE_NAME = "run.json"
Loop = Literal["open", "closed"]


@dataclass
class RunRecord:
    """One run.

    ``starts_s`` is when each stage began, in seconds since 1970, for those that were begun; ``elapsed_s`` how long the
    generator ran. ``traffic`` says in words what was sent, ``right`` how many of the photographs with known labels got
    them, 0-1.
    """

    loop: Loop
    shape: str
    url: str
    arrivals: str
    stages: list[Stage]
    targets: dict[str, float]
    traffic: str
    right: float | None = None
    starts_s: list[float] = field(default_factory=list)
    elapsed_s: float = 0.0
    interrupted: bool = False
    machine: str = ""
    ledger: Ledger = field(default_factory=Ledger)

    def save(self, folder: Path) -> None:
        """Write it into a folder, all or nothing."""
        entries = {name: value for name, value in vars(self).items() if name not in ("stages", "ledger")}
        stages = [asdict(stage) for stage in self.stages]
        partial = folder / (FILE_NAME + ".partial")
        partial.write_text(json.dumps({**entries, "stages": stages, "ledger": self.ledger.to_json()}), encoding="utf-8")
        partial.replace(folder / FILE_NAME)

    @classmethod
    def load(cls, folder: Path) -> "RunRecord":
        """Read what `save` wrote; ValueError when the folder holds no such file."""
        try:
            content: dict[str, Any] = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
            stages = [Stage(**stage) for stage in content.pop("stages")]
            return cls(stages=stages, ledger=Ledger.from_json(content.pop("ledger")), **content)
        except (OSError, KeyError, TypeError) as error:
            raise ValueError(f"{folder} holds no readable {FILE_NAME}: {error}") from error
