import json
import os
import shutil
import socket
import tempfile
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from launcher import __main__ as program
from launcher import doctor, preflight, resources
from launcher.preflight import Check, OccupiedError
from launcher.settings import Settings, SetupError, resolve

ROOT = Path(__file__).parents[3]
PORT_KEYS = (
    "inference_address",
    "management_address",
    "metrics_address",
    "grpc_inference_port",
    "grpc_management_port",
)
Usage = namedtuple("Usage", "total used free")


def pack(path: Path, device: str = "cpu", name: str = "", version: str = "2", **files: bytes) -> Path:
    name = name or path.stem
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("card.json", json.dumps({"name": name, "version": version, "device": device}))
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"modelName": name, "modelVersion": version}}))
        for name, data in files.items():
            archive.writestr(name.replace("__", "/") + ".py", data)
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    config = tmp_path / "config.properties"
    config.write_text("".join(f"{key}=http://127.0.0.1:{free_port()}\n" for key in PORT_KEYS))
    options = {"status_port": free_port(), "access_port": free_port()}
    return resolve("shapes", tmp_path, config, options, {})


def archive_of(settings: Settings) -> Path:
    return settings.model_store / f"{settings.model}.mar"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.mark.parametrize("version", [(3, 10), (3, 15), (2, 7)])
def test_another_python_fails(version: tuple[int, int]) -> None:
    with pytest.raises(SetupError, match=r"use Python 3\.11 to 3\.14"):
        preflight.check_python(version)


def java(folder: Path, script: str) -> dict[str, str]:
    file = folder / "bin" / "java"
    file.parent.mkdir()
    file.write_text(script)
    file.chmod(0o755)
    return {"JAVA_HOME": str(folder)}


def test_a_java_that_is_new_enough_is_reported_with_its_version(tmp_path: Path) -> None:
    environment = java(tmp_path, "#!/bin/sh\necho 'openjdk version \"17.0.9\" 2023' >&2\n")
    assert preflight.check_java(environment) == f"17.0.9 ({tmp_path}/bin/java)"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("#!/bin/sh\necho 'java version \"1.8.0_292\"' >&2", "is Java 1.8.0_292, which is too old"),
        ("#!/bin/sh\nexit 3\n", r"does not run \(exit code 3\)"),
        ("#!/bin/sh\necho hello >&2", "does not state its version"),
        ("not a program", "does not run"),
    ],
    ids=["8", "fails", "silent", "no-program"],
)
def test_a_java_that_cannot_be_used_fails_with_what_to_do(tmp_path: Path, script: str, message: str) -> None:
    with pytest.raises(SetupError, match=f"{message}.*set JAVA_HOME to a Java 17"):
        preflight.check_java(java(tmp_path, script))


def test_a_java_home_without_java_fails(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="Java is not installed"):
        preflight.check_java({"JAVA_HOME": str(tmp_path)})


def test_a_missing_archive_fails_with_the_command_that_makes_it(settings: Settings) -> None:
    with pytest.raises(SetupError, match="make archive MODEL=shapes"):
        preflight.check_archives(settings)


def test_an_archive_that_cannot_be_read_fails_with_the_user_who_cannot(settings: Settings) -> None:
    archive_of(settings).mkdir()
    with pytest.raises(SetupError, match=f"cannot be read .* let user {os.getuid()} read it"):
        preflight.check_archives(settings)


def test_archives_are_reported_with_version_and_device(settings: Settings) -> None:
    pack(archive_of(settings))
    pack(settings.model_store / "birds.mar")
    assert preflight.check_archives(settings) == "birds 2 for cpu, shapes 2 for cpu"


def test_an_archive_of_another_bundle_than_the_one_beside_it_fails(settings: Settings) -> None:
    pack(archive_of(settings))
    bundle = archive_of(settings).with_suffix("")
    bundle.mkdir()
    with zipfile.ZipFile(archive_of(settings)) as archive:
        card = json.loads(archive.read("card.json"))
    (bundle / "card.json").write_text(json.dumps(card | {"model": "model.int8.onnx", "device": "cpu"}))
    preflight.check_archives(settings)
    (bundle / "card.json").write_text(json.dumps(card | {"version": "1.0"}))  # the old bundle was moved back
    with pytest.raises(SetupError, match=r"which is 1\.0: build it again with `make archive MODEL=shapes`"):
        preflight.check_archives(settings)


def test_an_archive_for_a_gpu_fails_without_one(settings: Settings) -> None:
    pack(archive_of(settings), "cuda")
    with pytest.raises(SetupError, match=r"shapes\.mar was packaged for a GPU and nvidia-smi finds none here"):
        preflight.check_gpu(settings, {"PATH": ""})


def test_gpus_are_reported_by_name(settings: Settings, tmp_path: Path) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-1b2c)'\n")
    smi.chmod(0o755)
    assert preflight.check_gpu(settings, {"PATH": str(tmp_path)}) == "NVIDIA H100 80GB HBM3"


def test_a_taken_port_fails_with_its_option() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OccupiedError, match=f"Port {port} is not free .* --grpc-port"):
            preflight.check_port("grpc_port", port)
    assert preflight.check_port("grpc_port", port) == "free"
    assert preflight.check_port("grpc_port", 0) == "off"


def test_a_full_disk_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12 - 10**6, 10**6))
    with pytest.raises(SetupError, match=r"has 1 MB left .* make room"):
        preflight.check_disk(tmp_path)


def test_without_a_temporary_folder_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"no temporary folder to write to \(No such file.*set TMPDIR"):
        preflight.check_disk(tmp_path / "none")

    def nowhere() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    with pytest.raises(SetupError, match="No usable temporary directory found"):
        preflight.check_disk()


def test_too_little_memory_fails_whether_limited_or_used() -> None:
    assert preflight.check_memory(None, 8_000_000_000) == "8.0 GB free"
    assert preflight.check_memory(3_000_000_000, 2_000_000_000) == "2.0 GB free, limit 3.0 GB"
    with pytest.raises(SetupError, match="The memory limit is 512 MB, and Java and one worker need"):
        preflight.check_memory(512_000_000, 500_000_000)
    with pytest.raises(OccupiedError, match="300 MB of memory are free"):
        preflight.check_memory(None, 300_000_000)
    assert preflight.check_memory(3_000_000_000, 2_000_000_000, models=2) == "2.0 GB free, limit 3.0 GB"
    with pytest.raises(
        SetupError, match=r"Java and a worker for each of 9 archives need \d+ MB: raise the limit or move"
    ):
        preflight.check_memory(3_000_000_000, 2_000_000_000, models=9)


def test_the_installed_libraries_are_compared_with_the_lock(tmp_path: Path) -> None:
    assert "no lock file" in doctor.check_libraries(tmp_path / "none")
    lock = tmp_path / "serve.txt"
    lock.write_text(
        'nowhere==1 ; sys_platform == "win32" \\\n    --hash=sha256:00\n# a remark\npytest==0.1 \\\n    --hash=x\n'
    )
    with pytest.raises(SetupError, match=r"1 of 1 packages are not as locked \(pytest .*: run `make setup`"):
        doctor.check_libraries(lock)
    lock.write_text("nowhere-at-all==1\n")
    with pytest.raises(SetupError, match="nowhere-at-all missing for 1"):
        doctor.check_libraries(lock)


def test_the_real_lock_can_be_read() -> None:
    entries = doctor._locked((ROOT / "requirements" / "serve.txt").read_text())
    assert {"torchserve", "torch", "httpx"} <= {name for name, _ in entries}


def test_an_archive_of_other_sources_fails(settings: Settings) -> None:
    with pytest.raises(SetupError, match="No archive in"):
        doctor.check_sources(settings)
    pack(archive_of(settings), visionserve__model_card=(ROOT / "visionserve" / "model_card.py").read_bytes())
    assert doctor.check_sources(settings) == "the archives were packaged from these sources"
    pack(archive_of(settings), visionserve__model_card=b"# older")
    with pytest.raises(SetupError, match=r"other sources than these: .*make archive MODEL=shapes"):
        doctor.check_sources(settings)
    # An earlier version that is kept beside the present one cannot be built again.
    pack(archive_of(settings), visionserve__model_card=(ROOT / "visionserve" / "model_card.py").read_bytes())
    pack(settings.model_store / "kept.mar", name="shapes", version="1", visionserve__model_card=b"# older")
    assert doctor.check_sources(settings).endswith("without a bundle to build them from: kept.mar")


def passes() -> str:
    return "good"


def fails() -> str:
    raise SetupError("It is missing: install it.")


def occupied() -> str:
    raise OccupiedError("Port 1 is not free: stop what listens there.")


def test_failed_checks_are_counted_and_exit_with_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "check_libraries", lambda _: "as locked")
    monkeypatch.setattr(doctor, "check_sources", lambda _: "these")
    monkeypatch.setattr(preflight, "checks", lambda *_: [Check("one", passes), Check("two", fails)])
    assert doctor.report(settings, {}) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["ok    one         good", "FAIL  two         It is missing: install it."]
    assert lines[-1] == "1 of 4 checks failed."
    monkeypatch.setattr(preflight, "checks", lambda *_: [Check("one", passes)])
    assert doctor.report(settings, {}) == 0
    assert capsys.readouterr().out.endswith("All 3 checks passed.\n")


def test_a_port_of_the_running_service_is_not_a_failure(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for answers, line in ((False, "FAIL  port 1"), (True, "ok    port 1")):
        monkeypatch.setattr(doctor, "_answers", lambda _, answers=answers: answers)
        assert doctor._report(Check("port 1", occupied), settings) is answers
        assert capsys.readouterr().out.startswith(line)


def test_the_doctor_makes_all_of_preflights_checks_and_two_more(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    ports = [f"--{name.replace('_', '-')}={port}" for name, port in settings.ports.items()]
    ports += [f"--status-port={settings.status_port}", f"--access-port={settings.access_port}"]
    options = [f"--config={settings.config}", f"--model-store={settings.model_store}", "--model=shapes", *ports]
    assert program.main(["doctor", *options]) == 1
    lines = capsys.readouterr().out.splitlines()
    checks = preflight.checks(settings, os.environ)
    assert [line[6:16].split()[0] for line in lines[:-1]] == [
        *(check.topic.split()[0] for check in checks),
        "libraries",
        "sources",
    ]
    assert lines[-1].endswith(f"of {len(checks) + 2} checks failed.")
    # The same sentence as that of a start.
    assert program.main(["serve", *options]) == 2
    assert f"FAIL  archive     {capsys.readouterr().err.strip()}" in lines


@pytest.mark.parametrize(("quota", "workers"), [(1.4, 2), (0.5, 1), (2.0, 2)])
def test_doctor_and_launcher_start_from_the_same_number_of_workers(
    quota: float, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "cpus", lambda: quota)
    monkeypatch.setattr(resources, "memory_bytes", lambda: None)
    assert preflight.check_cpu().endswith(f"workers per CPU model: {workers}")
