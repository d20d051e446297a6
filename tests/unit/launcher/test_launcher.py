import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launcher import __main__ as program
from launcher import gateway_process, preflight, process, resources, self_test
from launcher.archive import Archive
from launcher.plan import make_plan
from launcher.settings import PORTS, Settings, SetupError, resolve
from training.export import sample

ROOT = Path(__file__).parents[3]
CONFIG = "inference_address=http://127.0.0.1:8080\nmanagement_address=http://127.0.0.1:8081/\n# a=b\n"
CONFIG += "metrics_address=http://127.0.0.1:8082\ngrpc_inference_port=7070\ngrpc_management_port = 7071\n"
ANSWER = {"predictions": [{"label": "rose", "index": 1, "probability": 0.75}], "novelty": 0.25}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.properties"
    file.write_text(CONFIG)
    return file


@pytest.fixture
def settings(config: Path, tmp_path: Path) -> Settings:
    return resolve("roses", tmp_path, config, {}, {})


def test_ports_come_from_the_file_the_environment_wins_and_the_command_line_wins_over_both(config: Path) -> None:
    environment = {"TS_INFERENCE_ADDRESS": "http://127.0.0.1:9000", "TS_GRPC_INFERENCE_PORT": "9001"}
    settings = resolve("roses", Path(), config, {"port": 9100, "management_port": None}, environment)
    assert settings.ports == {
        "port": 9100,
        "management_port": 8081,
        "metrics_port": 8082,
        "grpc_port": 9001,
        "grpc_management_port": 7071,
    }
    assert settings.overrides == {"TS_INFERENCE_ADDRESS": "http://127.0.0.1:9100"}
    assert settings.url == "http://127.0.0.1:9100"


@pytest.mark.parametrize(
    "value", ["http://127.0.0.1", "unix:/tmp/socket", "http://127.0.0.1:0", "http://127.0.0.1:99999"]
)
def test_an_address_without_a_usable_port_is_refused(config: Path, value: str) -> None:
    with pytest.raises(SetupError, match="inference_address"):
        resolve("roses", Path(), config, {}, {"TS_INFERENCE_ADDRESS": value})


def test_a_platforms_port_is_the_gateways_and_leaves_it_some_memory(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "memory_bytes", lambda: None)
    monkeypatch.setattr(resources, "machine_memory_bytes", lambda: 2 << 30)
    assert process.memory_bytes(resolve("roses", tmp_path, config, {}, {"PORT": "9000"})) is None
    settings = resolve("roses", tmp_path, config, {"gateway": True}, {"PORT": "9000"})
    assert process.memory_bytes(settings) == (2 << 30) - process.GATEWAY_BYTES
    options = gateway_process.options(settings, {"GATEWAY_RELEASES_FILE": "/r.json"})
    assert {"--port=9000", "--host=::", "--inference=127.0.0.1:8080"} <= set(options)
    assert not [option for option in options if option.startswith("--releases-file")]
    with pytest.raises(SetupError, match=r"GATEWAY_PORT has no effect with --gateway"):
        preflight.check_gateway(settings, {"GATEWAY_PORT": "9001"})


@pytest.mark.parametrize("port", ["0", "http", "70000"])
def test_a_platforms_port_must_be_one(config: Path, port: str) -> None:
    with pytest.raises(SetupError, match="PORT must be a port"):
        resolve("roses", Path(), config, {"gateway": True}, {"PORT": port})


def test_the_gateway_cannot_have_a_port_of_torchserve(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: "/usr/sbin/nginx")
    settings = resolve("roses", Path(), config, {"gateway": True}, {})
    with pytest.raises(SetupError, match="PORT is 8080, which TorchServe or the status server has"):
        preflight.check_gateway(settings, {})


def test_every_option_for_a_port_is_one_of_the_command_line() -> None:
    options = program._parser().parse_args(["serve", *(f"--{name.replace('_', '-')}=1" for name in PORTS)])
    assert all(getattr(options, name) == 1 for name in PORTS)


def test_the_launchers_own_settings_follow_the_same_precedence(config: Path) -> None:
    environment = {
        "VISIONSERVE_STATUS_PORT": "9001",
        "VISIONSERVE_STATUS_HOST": "0.0.0.0",
        "VISIONSERVE_DRAIN_DELAY": "5",
    }
    settings = resolve("roses", Path(), config, {"status_port": "9002", "access_port": None}, environment)
    assert (settings.status_port, settings.status_host, settings.access_port) == (9002, "0.0.0.0", 8084)
    assert (settings.drain_delay_s, settings.drain_timeout_s) == (5, 30)


@pytest.mark.parametrize(
    ("name", "value"),
    [("status_port", "x"), ("access_port", "70000"), ("drain_delay", "-1"), ("drain_timeout", "nan")],
)
def test_a_setting_that_is_none_is_refused_by_its_option_and_variable(config: Path, name: str, value: str) -> None:
    with pytest.raises(SetupError, match=f"--{name.replace('_', '-')} \\(or VISIONSERVE_{name.upper()}\\)"):
        resolve("roses", Path(), config, {name: value}, {})


def test_what_stands_in_the_way_is_one_sentence_and_exit_code_2(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = program.main(["serve", f"--config={config}", f"--model-store={tmp_path}", "--model=roses"])
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert len(captured.err.splitlines()) == 1


def test_torchserve_is_given_every_archive_and_a_private_place_to_write(settings: Settings, tmp_path: Path) -> None:
    archives = [
        Archive("roses", version, "", {}, tmp_path / file) for version, file in (("1", "b.mar"), ("2", "a.mar"))
    ]
    command = process.command(settings, "java", "/private", make_plan(4, 3_000_000_000), archives)
    assert command[command.index("-m") + 1 :] == ["b.mar", "a.mar"]
    assert {"-Djava.io.tmpdir=/private", "-XX:ActiveProcessorCount=4"} < set(command)
    assert Path(command[command.index("-cp") + 1]).with_name("model-server.jar").is_file()
    environment = process.child_environment(
        settings, {"PATH": "/bin", "LANG": "C", "TS_CONFIG_FILE": "other"}, "/private", make_plan(4, 3_000_000_000)
    )
    variables = ("LOG_LOCATION", "METRICS_LOCATION", "TEMP", "TMPDIR")
    assert {environment[name] for name in variables} == {"/private"}
    assert environment["LANG"] == "C"
    assert "TS_CONFIG_FILE" not in environment
    assert environment["TS_DEFAULT_WORKERS_PER_MODEL"] == "4"
    assert environment["PATH"].split(os.pathsep) == [str(Path(sys.executable).parent), "/bin"]


def test_java_is_given_its_class_data_where_there_is_any(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "classes.jsa"
    assert process.class_data(file) == []
    file.touch()
    command = process.command(
        settings, "java", "/private", make_plan(4, 3_000_000_000), options=process.class_data(file)
    )
    assert f"-XX:SharedArchiveFile={file}" in command[: command.index("-cp")]


def test_stopping_leaves_no_process_of_the_session_behind(tmp_path: Path) -> None:
    deaf = "trap '' TERM; sleep 60 & echo $! > child; echo ready; wait"
    child = subprocess.Popen(["/bin/sh", "-c", deaf], cwd=tmp_path, stdout=subprocess.PIPE, start_new_session=True)
    assert child.stdout is not None
    with child.stdout:
        child.stdout.readline()
    grandchild = int((tmp_path / "child").read_text())
    process.stop(child, timeout_s=0.2)
    assert child.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 5
    while alive(grandchild) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(grandchild)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_service_is_first_asked_with_an_image_that_its_model_was_made_for(tmp_path: Path) -> None:
    pets, flowers = (Archive(name, "1.0", "", {}) for name in ("pets", "flowers"))
    title, image = self_test.probe_image(pets, tmp_path)
    assert title.startswith("A dahlia, from scikit-learn; pets has no image of its own at ")
    assert image == self_test.dahlia().read_bytes()
    assert self_test.probe_image(flowers, tmp_path)[0] == "A dahlia, from scikit-learn:"
    (tmp_path / ".samples").mkdir()
    (tmp_path / ".samples" / "pets.jpg").write_bytes(b"a cat")
    title, image = self_test.probe_image(pets, tmp_path)
    assert (title.startswith("One of the test images of pets, "), image) == (True, b"a cat")
    assert sample.FOLDER == self_test.SAMPLES
    assert f"model_store/{sample.FOLDER}/$(MODEL).jpg" in (ROOT / "Makefile").read_text()


def test_the_dahlia_is_there_without_a_download() -> None:
    assert self_test.dahlia().read_bytes().startswith(b"\xff\xd8\xff")


GUARDED = """
import os, subprocess, sys, time
from launcher import process
child = subprocess.Popen(["/bin/sh", "-c", "sleep 300 & sleep 300"], start_new_session=True, stdout=subprocess.DEVNULL)
with process.guard(child.pid, sys.argv[1]):
    print(child.pid, flush=True)
    time.sleep(300)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR1, signal.SIGALRM, signal.SIGHUP])
def test_whatever_ends_the_launcher_ends_what_it_started(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "private"
    folder.mkdir()
    (folder / "archive").touch()
    command = [sys.executable, "-c", GUARDED, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        session = int(launcher.stdout.readline())
        launcher.send_signal(number)
        assert launcher.wait(timeout=20) == -number
    deadline = time.monotonic() + 10
    while (session_lives(session) or folder.exists()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not session_lives(session)
    assert not folder.exists()


def test_the_guard_leaves_with_the_launcher_and_harms_nobody(tmp_path: Path) -> None:
    child = subprocess.Popen(["sleep", "300"], start_new_session=True)
    with process.guard(child.pid, str(tmp_path)):
        pass
    assert child.poll() is None
    assert tmp_path.exists()
    process.stop(child)


def session_lives(session: int) -> bool:
    pids = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal()]
    return any(alive(pid) and session_of(pid) == session for pid in pids)


def session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0
