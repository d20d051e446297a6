"""Default versions: lets the version that `releases.json` states answer, whenever the file changes while it serves.

TorchServe switches between two requests: each is answered by the old version or by the new one, and none is lost.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from launcher import releases
from launcher.releases import Release, ReleaseError
from launcher.torchserve_api import NoAnswer
from launcher.workers import Model, WorkerMonitor


class Switch(Protocol):
    """The part of TorchServe that is needed here."""

    def set_default(self, model: str, /) -> None: ...  # noqa: D102


class DefaultVersions:
    """Follows a file; ``report`` gets a sentence about each switch, and about what cannot be done."""

    def __init__(self, path: Path, monitor: WorkerMonitor, server: Switch, report: Callable[[str], None]) -> None:
        self._path, self._monitor, self._server, self._report = path, monitor, server, report
        self._state = releases.state(path)

    def follow(self) -> None:
        """Take over what the file says, if it has changed."""
        state = releases.state(self._path)
        if state == self._state:
            return
        self._state = state
        try:
            stated = releases.load(self._path)
        except ReleaseError as error:
            self._report(f"{error} Until then the same versions answer as before.")
            return
        for name, model in list(self._monitor.defaults.items()):
            self._set(name, model, stated.get(name))

    def _set(self, name: str, present: Model, release: Release | None) -> None:
        versions = [model.archive.version for model in self._monitor.versions(name)]
        version = releases.default_version(versions, release)
        if version == present.archive.version:
            return
        model = self._monitor.find(name, version)
        trouble = self._trouble(model)
        if model is None or trouble:
            self._report(f"{name} {version} cannot answer ({trouble}): {present.archive.title} goes on answering.")
            return
        try:
            self._server.set_default(model.archive.key)
        except NoAnswer as error:
            # Asked again at the next look.
            self._state = None
            self._report(f"TorchServe did not switch to {model.archive.title} ({error}): it is asked again.")
            return
        self._monitor.set_default(model)
        self._report(f"{model.archive.title} answers now, and {present.archive.title} did before.")

    def _trouble(self, model: Model | None) -> str:
        if model is None:
            return "no archive of it was there at the start: start again"
        status = self._monitor.status(model)
        return "" if status == "ready" else f"it is {status}"
