"""`python -m launcher release`: state which version answers, or which one gets a share or copies of the requests.

It writes `releases.json`; launcher and gateway follow that file. Where a service runs, the version has to be ready
there, and a switch is waited for until the service reports it.
"""

import contextlib
import http.client
import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from launcher import archive as archives
from launcher import releases
from launcher.releases import Release, ReleaseError
from launcher.settings import HOST, Settings, SetupError

DEFAULT_STORE = Path("model_store")  # as the options of `python -m launcher` have it
DONE, FAILED = 0, 1
_TIMEOUT_S, _SWITCH_S, _POLL_S = 5.0, 20.0, 0.1


@dataclass(frozen=True)
class Order:
    """What is asked for: a version and its share or shadow in percent, or back; nothing of it only reports."""

    version: str | None = None
    share: int | None = None
    shadow: int | None = None
    back: bool = False


def run(settings: Settings, order: Order) -> int:
    """Carry an order out, print what holds then, and return the exit code.

    Raises:
        SetupError: it cannot be carried out; nothing has changed.
    """
    path = settings.model_store / releases.FILE_NAME
    try:
        stated = releases.load(path)
        versions = _versions(settings)
        present = stated.get(settings.model) or Release(releases.default_version(versions, None))
        wanted = plan(settings.model, versions, present, order)
        if wanted is None:
            print(sentence(settings.model, present, versions))
            return DONE
        served = _served(settings)
        if served is not None:
            _require_ready(settings.model, served, wanted.candidate or wanted.default)
        releases.save(path, {**stated, settings.model: wanted})
    except ReleaseError as error:
        raise SetupError(str(error)) from error
    print(sentence(settings.model, wanted, versions))
    return _report(settings, wanted, running=served is not None, switched=wanted.default != present.default)


def plan(name: str, versions: Sequence[str], present: Release, order: Order) -> Release | None:
    """Return what an order leads to; None if it asks for nothing. Raises SetupError."""
    if order.back:
        return _back(name, versions, present)
    if order.version is None:
        if order.share is not None or order.shadow is not None:
            raise SetupError("A share or a shadow is of a version: name it with --version.")
        return None
    if order.version not in versions:
        raise SetupError(f"No archive holds {name} {order.version}; there are {', '.join(versions)}.")
    if order.share is None and order.shadow is None:
        previous = present.default if present.default != order.version else present.previous
        return Release(order.version, previous)
    try:
        return replace(present, candidate=order.version, share=order.share or 0, shadow=order.shadow or 0)
    except ReleaseError as error:
        raise SetupError(f"{name} {order.version} cannot be released like that: {error}.") from error


def _back(name: str, versions: Sequence[str], present: Release) -> Release:
    """Take the candidate back; without one, the switch before."""
    if present.candidate:
        return replace(present, candidate="", share=0, shadow=0)
    if not present.previous:
        raise SetupError(f"{name} has no version before {present.default}: name one with TO= (--version).")
    if present.previous not in versions:
        raise SetupError(
            f"No archive holds {name} {present.previous}, which answered before: bring it back, or name one of "
            f"{', '.join(versions)} with --version."
        )
    return Release(present.previous, present.default)


def sentence(name: str, release: Release, versions: Sequence[str]) -> str:
    """Return what holds, for people."""
    text = f"{name} {release.default} answers"
    if release.share:
        text += f" {100 - release.share} % of the requests and {release.candidate} {release.share} %"
    if release.shadow:
        text += f", and {release.candidate} gets copies of {release.shadow} % of the requests"
    others = [version for version in versions if version not in (release.default, release.candidate)]
    return f"{text}; also there: {', '.join(others)}." if others else f"{text}."


def undo(settings: Settings) -> str:
    """Return the command that takes a release back, with what finds the same service and folder."""
    options = [f"--port-offset {settings.port_offset}"] if settings.port_offset else []
    if settings.model_store != DEFAULT_STORE:
        options.append(f"--model-store {shlex.quote(str(settings.model_store))}")
    return f"make rollback MODEL={shlex.quote(settings.model)}" + (f' ARGS="{" ".join(options)}"' if options else "")


def _report(settings: Settings, wanted: Release, *, running: bool, switched: bool) -> int:
    if not running:
        print(
            f"No service answers at port {settings.status_port} of this machine: one that reads this folder, as in a "
            "container, follows by itself, else from its start on. One at other ports is found with "
            'ARGS="--port-offset N".'
        )
    elif switched and not _await_switch(settings, wanted.default):
        print(f"The service has not taken it over within {_SWITCH_S:.0f} s: its log says why.")
        return FAILED
    if wanted.candidate:
        print(
            "`make gateway` takes it over within a second, one in a container when told to (docs/releases.md); "
            "its log has the predictions of both versions."
        )
    if wanted.candidate or wanted.previous:
        print(f"Undo it with `{undo(settings)}` (python -m launcher release: the same options and --back).")
    return DONE


def _versions(settings: Settings) -> list[str]:
    """Return the versions in the folder, the lowest first."""
    held = archives.read_all(settings.archives, {})
    versions = [archive.version for archive in held if archive.name == settings.model]
    if not versions:
        raise SetupError(f"No archive in {settings.model_store} holds {settings.model}: `make archive` builds one.")
    return sorted(versions, key=releases.order)


def _require_ready(name: str, served: Mapping[str, Mapping[str, Any]], version: str) -> None:
    status = served.get(version, {}).get("status", "not loaded: start it again, so that it loads the archive")
    if status != "ready":
        raise SetupError(f"The service that runs has no ready {name} {version} ({status}): nothing has changed.")


def _await_switch(settings: Settings, version: str) -> bool:
    deadline = time.monotonic() + _SWITCH_S
    while time.monotonic() < deadline:
        served = _served(settings) or {}
        if served.get(version, {}).get("default"):
            return True
        time.sleep(_POLL_S)
    return False


def _served(settings: Settings) -> dict[str, Mapping[str, Any]] | None:
    """Return the versions that the service reports, by version; None without a service."""
    if settings.status_port == 0:
        return None
    connection = http.client.HTTPConnection(HOST, settings.status_port, timeout=_TIMEOUT_S)
    try:
        with contextlib.closing(connection):
            connection.request("GET", "/models")
            listed = json.loads(connection.getresponse().read())["models"]
        return {model["version"]: model for model in listed if model["name"] == settings.model}
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None
