"""Canary: the model versions that get a share of the requests, or copies of them, as `releases.json` states.

The file is the launcher's (launcher/releases.py). What no candidate gets goes to the version that TorchServe answers
with by default; a request that names a version gets that one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.options import OptionError
from launcher import releases


@dataclass(frozen=True)
class Candidate:
    """A version of a model, and the percentage of its requests that it answers or gets copies of."""

    model: str
    version: str
    share: int
    shadow: int

    @property
    def sentence(self) -> str:
        """What it gets, for people."""
        if self.share:
            return f"{self.share} % of the requests for {self.model} go to version {self.version}."
        return f"Copies of {self.shadow} % of the requests for {self.model} go to version {self.version}."

    def patterns(self) -> dict[str, str]:
        """Return the paths that name this model and no version, as regular expressions, each with TorchServe's path."""
        name = self.model.replace(".", "[.]")
        paths = ("/predictions/{}", "/explanations/{}", "/v2/models/{}/infer", "/v1/models/{}:predict")
        verbs = ("predictions", "explanations", "predictions", "predictions")
        return {
            path.format(name): f"/{verb}/{self.model}/{self.version}" for path, verb in zip(paths, verbs, strict=True)
        }


def read(path: Path | None) -> list[Candidate]:
    """Return the candidates; none without a file. Raises OptionError."""
    if path is None:
        return []
    try:
        stated: Mapping[str, releases.Release] = releases.load(path)
    except releases.ReleaseError as error:
        raise OptionError(str(error)) from error
    return [
        Candidate(model, release.candidate, release.share, release.shadow)
        for model, release in sorted(stated.items())
        if release.candidate
    ]


class Follower:
    """Looks whether the file has changed."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._state = self._look()

    def changed(self) -> bool:
        """Whether it has changed since the last call."""
        before, self._state = self._state, self._look()
        return self._state != before

    def _look(self) -> object:
        return None if self._path is None else releases.state(self._path)
