"""The set-up says in one sentence what is missing, on Pythons that cannot run the rest of the project."""

import importlib.util
import shutil
import sys
from collections import namedtuple
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "install.py"
Disk = namedtuple("Disk", "total used free")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, whose environment would be made in an empty folder."""
    spec = importlib.util.spec_from_file_location("install", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(sys, "argv", ["install.py", "serve"])
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Disk(2**40, 0, 2**40))
    return module


def complaint(install: ModuleType, capsys: pytest.CaptureFixture[str]) -> str:
    assert install.main() == 1
    assert not install.VENV.exists()
    return capsys.readouterr().err


def test_a_python_that_is_too_old_is_named(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    assert complaint(install, capsys).endswith("Python 3.11 to 3.14 is needed, this is 3.9.\n")


def test_a_fitting_python_on_the_path_replaces_one_that_is_too_old(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    monkeypatch.setattr(shutil, "which", lambda name: sys.executable if name == "python3.11" else None)
    monkeypatch.setattr(install.subprocess, "call", lambda *_command, **_options: 0)
    assert install.find_python() == sys.executable


def test_the_newest_of_several_pythons_is_taken(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 15, 0))
    there = {"python3.12", "python3.13", "python3.15"}
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}" if name in there else None)
    monkeypatch.setattr(install.subprocess, "call", lambda *_command, **_options: 0)
    assert install.find_python() == "/bin/python3.13"


def test_a_full_disk_is_named(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: Disk(100 << 30, 99 << 30, 1 << 30))
    assert "9 GiB of disk space are needed" in complaint(install, capsys)


def test_another_kind_of_machine_is_named(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install.platform, "machine", lambda: "aarch64")
    assert "Linux on x86-64 only" in complaint(install, capsys)


def test_an_environment_that_is_there_is_left_alone(install: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    (install.VENV / "bin").mkdir(parents=True)
    (install.VENV / "bin" / "uv").touch()
    monkeypatch.setattr(install, "run", lambda *_arguments: pytest.fail("something was run"))
    install.make_environment()
