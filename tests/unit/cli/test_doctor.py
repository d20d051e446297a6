import json
import socket
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import ROOT
from visionserve.cli import doctor
from visionserve.cli.__main__ import main
from visionserve.cli.doctor import Finding


def archive(path: Path, device: str = "cpu", **files: bytes) -> Path:
    card = {"name": "shapes", "version": "2", "device": device}
    with zipfile.ZipFile(path, "w") as content:
        content.writestr("card.json", json.dumps(card))
        for name, data in files.items():
            content.writestr(name.replace("__", "/") + ".py", data)
    return path


@pytest.mark.parametrize(
    ("version", "right"), [("3.11.7", True), ("3.12.0", True), ("3.10.9", False), ("3.13.1", False)]
)
def test_pythons_that_were_tried_are_right(version: str, right: bool) -> None:
    assert (doctor.python(version).mend == "") == right


@pytest.mark.parametrize(
    ("script", "found", "right"),
    [
        ("echo 'openjdk version \"17.0.9\" 2023' >&2", "17.0.9", True),
        ("echo 'java version \"1.8.0_292\"' >&2", "1.8.0_292", False),
        ("exit 3", "does not run (exit code 3)", False),
        ("echo hello >&2", "does not run", False),
    ],
    ids=["17", "8", "fails", "no-java"],
)
def test_a_java_is_asked_for_its_version(tmp_path: Path, script: str, found: str, right: bool) -> None:
    program = tmp_path / "bin" / "java"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    finding = doctor.java({"JAVA_HOME": str(tmp_path)})
    assert found in finding.found
    assert (finding.mend == "") == right


def test_a_java_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "No such file" in doctor.java({"JAVA_HOME": str(tmp_path)}).found


def test_the_installed_libraries_are_held_against_the_lock(tmp_path: Path) -> None:
    assert doctor.libraries(tmp_path / "none").mend == ""
    lock = tmp_path / "serve.txt"
    lock.write_text(
        'nowhere==1 ; sys_platform == "win32" \\\n    --hash=sha256:00\n# a remark\npytest==0.1 \\\n    --hash=x\n'
    )
    finding = doctor.libraries(lock)
    assert finding.found.startswith("1 of 1 are not as locked (pytest ")
    assert finding.mend == "run `make setup`"
    lock.write_text("nowhere-at-all==1\n")
    assert "nowhere-at-all missing for 1" in doctor.libraries(lock).found


def test_the_real_lock_can_be_read() -> None:
    entries = doctor._locked((ROOT / "requirements" / "serve.txt").read_text())
    assert entries is not None
    assert {"torchserve", "torch", "httpx"} <= {name for name, _ in entries}


@pytest.mark.parametrize(("free", "right"), [(2_000_000_000, True), (1_000_000_000, False)])
def test_memory_is_enough_or_not(free: int, right: bool) -> None:
    assert (doctor.memory(free).mend == "") == right


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.disk(tmp_path).mend == ""
    monkeypatch.setattr(doctor, "DISK_BYTES", 1 << 62)
    assert "make room" in doctor.disk(tmp_path).mend


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_that_something_else_has_is_named(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_serves", lambda: False)
    assert "stop what listens there" in doctor.listening(taken).mend
    monkeypatch.setattr(doctor, "_serves", lambda: True)
    assert doctor.listening(taken).mend == ""


def test_a_free_port_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    assert doctor.listening(port) == Finding(f"port {port}", "free")


def test_an_archive_of_these_sources_is_right(tmp_path: Path) -> None:
    source = (ROOT / "visionserve" / "model_card.py").read_bytes()
    finding = doctor.packed(archive(tmp_path / "shapes.mar", visionserve__model_card=source), has_gpu=False)
    assert str(finding) == f"ok    archive    {tmp_path}/shapes.mar: shapes 2 for cpu"


def test_an_archive_that_cannot_serve_here_is_named(tmp_path: Path) -> None:
    assert "is missing" in doctor.packed(tmp_path / "none.mar", has_gpu=True).found
    (tmp_path / "junk.mar").write_bytes(b"junk")
    assert "is broken" in doctor.packed(tmp_path / "junk.mar", has_gpu=True).found
    cuda = archive(tmp_path / "cuda.mar", "cuda")
    assert doctor.packed(cuda, has_gpu=True).mend == ""
    assert doctor.packed(cuda, has_gpu=False).mend == "build it with `make archive MODEL=cuda` PROFILE=cpu"
    old = archive(tmp_path / "old.mar", visionserve__model_card=b"# older")
    assert "other sources" in doctor.packed(old, has_gpu=False).found


@pytest.mark.parametrize("wrong", [True, False])
def test_the_exit_code_says_whether_something_must_be_mended(
    wrong: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found: list[Any] = [Finding("one", "good"), Finding("two", "bad", "mend it" if wrong else "")]
    monkeypatch.setattr(doctor, "findings", lambda _archive: iter(found))
    assert main(["doctor"]) == int(wrong)
    assert ("mend  two        bad: mend it" in capsys.readouterr().out) == wrong


def test_the_doctor_looks_at_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--archive", str(tmp_path / "none.mar")]) == 1
    topics = [line.split()[1] for line in capsys.readouterr().out.splitlines()[:-1]]
    assert topics == ["python", "java", "libraries", "cpu", "memory", "gpu", "disk", *["port"] * 6, "archive"]
