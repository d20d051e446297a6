"""Doctor: reports every preflight check, one line each, with what to do about a failure; changes nothing.

Beside preflight's own checks: the installed libraries are those of the lock file, and each archive was packaged from
the sources that are here. Exit code 1 when a check failed.
"""

import contextlib
import http.client
import importlib.metadata
import re
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from launcher import preflight
from launcher.preflight import Check, OccupiedError
from launcher.settings import HOST, Settings, SetupError

ROOT = Path(__file__).parents[1]
DONE, FAILED = 0, 1
_LISTED = 4


def report(settings: Settings, environment: Mapping[str, str]) -> int:
    """Print a line for every check and return the exit code."""
    checks = [
        *preflight.checks(settings, environment),
        Check("libraries", partial(check_libraries, ROOT / "requirements" / "serve.txt")),
        Check("sources", partial(check_sources, settings)),
    ]
    failed = sum(not _report(check, settings) for check in checks)
    print(f"{failed} of {len(checks)} checks failed." if failed else f"All {len(checks)} checks passed.")
    return FAILED if failed else DONE


def _report(check: Check, settings: Settings) -> bool:
    """Print a check's line; return whether it passed."""
    try:
        result, text = "ok", check.run()
    except OccupiedError as error:
        # Ports and memory that a running service uses.
        result, text = ("ok", "in use by the service that runs here") if _answers(settings) else ("FAIL", str(error))
    except SetupError as error:
        result, text = "FAIL", str(error)
    print(f"{result:<4}  {check.topic:<10}  {text}")
    return result == "ok"


def check_libraries(lock: Path) -> str:
    """Require the versions of the lock file."""
    if not lock.is_file():
        return "no lock file to compare them with"
    locked = _locked(lock.read_text(encoding="utf-8"))
    different = [f"{name} {_installed(name)} for {v}" for name, v in locked if _installed(name) != v]
    if different:
        listed = ", ".join(different[:_LISTED]) + (", ..." if len(different) > _LISTED else "")
        raise SetupError(f"{len(different)} of {len(locked)} packages are not as locked ({listed}): run `make setup`.")
    return f"{len(locked)} packages as locked"


def check_sources(settings: Settings) -> str:
    """Require that the archives carry the library as it is here."""
    if not settings.archives:
        raise SetupError(f"No archive in {settings.model_store}: build one with `make archive`.")
    kept = []
    for path in settings.archives:
        try:
            with zipfile.ZipFile(path) as archive:
                packed = {name: archive.read(name) for name in archive.namelist() if name.startswith("visionserve/")}
        except (OSError, zipfile.BadZipFile) as error:
            raise SetupError(f"{path} cannot be read ({error}): build it with `make archive`.") from error
        if all(_same(ROOT / name, content) for name, content in packed.items()):
            continue
        if path.with_suffix("").is_dir() or len(settings.archives) == 1:
            raise SetupError(
                f"{path} was packaged from other sources than these: build it with `make archive MODEL={path.stem}`."
            )
        kept.append(path.name)
    other = f"; from other sources, and without a bundle to build them from: {', '.join(kept)}" if kept else ""
    return "the archives were packaged from these sources" + other


def _same(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def _locked(text: str) -> list[tuple[str, str]]:
    """Return names and versions of a lock file's entries that apply to this machine."""
    try:
        from packaging.requirements import Requirement
    except ImportError as error:
        raise SetupError("The package `packaging` is missing: run `make setup`.") from error
    entries = [Requirement(line.split(" \\")[0]) for line in text.splitlines() if re.match(r"[A-Za-z0-9]", line)]
    applying = [entry for entry in entries if entry.marker is None or entry.marker.evaluate()]
    return [(entry.name, next(iter(entry.specifier)).version) for entry in applying]


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _answers(settings: Settings) -> bool:
    """Whether TorchServe answers at its port, which explains who uses ports and memory."""
    connection = http.client.HTTPConnection(HOST, settings.ports["port"], timeout=2)
    try:
        with contextlib.closing(connection):
            connection.request("GET", "/ping")
            return b"status" in connection.getresponse().read(1000)
    except (OSError, http.client.HTTPException):
        return False
