import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from launcher import __main__ as program
from launcher import release_command, releases
from launcher.release_command import Order
from launcher.releases import Release
from launcher.settings import PORTS, SetupError, resolve
from tests.e2e.conftest import free_ports
from tests.unit.launcher.test_doctor import PORT_KEYS, pack

VERSIONS = ("1.0", "1.1", "1.2")


@pytest.mark.parametrize(
    ("present", "order", "expected"),
    [
        (Release("1.0"), Order("1.1", share=10), Release("1.0", candidate="1.1", share=10)),
        (Release("1.0"), Order("1.1", shadow=100), Release("1.0", candidate="1.1", shadow=100)),
        (Release("1.0", candidate="1.1", share=10), Order("1.1", share=50), Release("1.0", candidate="1.1", share=50)),
        (Release("1.0", candidate="1.1", share=50), Order("1.1"), Release("1.1", "1.0")),
        (Release("1.0", "0.9", "1.1", share=50), Order(back=True), Release("1.0", "0.9")),
        (Release("1.1", "1.0"), Order(back=True), Release("1.0", "1.1")),
        (Release("1.1", "1.0"), Order("1.1"), Release("1.1", "1.0")),
        (Release("1.1", "1.0"), Order(), None),
    ],
)
def test_an_order_leads_to_a_release(present: Release, order: Order, expected: Release | None) -> None:
    assert release_command.plan("mine", VERSIONS, present, order) == expected


@pytest.mark.parametrize(
    ("present", "order", "message"),
    [
        (Release("1.0"), Order("3"), r"No archive holds mine 3; there are 1\.0, 1\.1, 1\.2"),
        (Release("1.0"), Order("1.0", share=10), "the candidate is another version than the default"),
        (Release("1.0"), Order("1.1", share=0), "above 0"),
        (Release("1.0"), Order("1.1", share=101), "0 to 100"),
        (Release("1.0"), Order(share=10), "name it with --version"),
        (Release("1.0"), Order(back=True), r"no version before 1\.0: name one with TO= \(--version\)"),
        (Release("1.0", "0.9"), Order(back=True), r"No archive holds mine 0\.9, which answered before: bring it back"),
    ],
)
def test_what_cannot_be_is_one_sentence(present: Release, order: Order, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        release_command.plan("mine", VERSIONS, present, order)


@pytest.mark.parametrize(
    ("store", "offset", "command"),
    [
        ("model_store", {}, "make rollback MODEL=mine"),
        ("model_store", {"VISIONSERVE_PORT_OFFSET": "100"}, 'make rollback MODEL=mine ARGS="--port-offset 100"'),
        (
            "birds_store",
            {"port_offset": 7},
            'make rollback MODEL=mine ARGS="--port-offset 7 --model-store birds_store"',
        ),
    ],
    ids=["as-it-is", "offset-of-the-environment", "offset-and-folder"],
)
def test_the_way_back_is_a_command_for_the_same_service(store: str, offset: dict[str, Any], command: str) -> None:
    settings = resolve("mine", Path(store), Path("config.properties"), offset, offset)
    assert release_command.undo(settings) == command


class Status:
    """A status server that follows the file, as the launcher does."""

    def __init__(self, file: Path) -> None:
        self.file, self.states = file, {"1.0": "ready", "1.1": "ready", "1.2": "failed"}

    def models(self) -> list[dict[str, Any]]:
        default = releases.default_version(list(self.states), releases.load(self.file).get("mine"))
        return [
            {"name": "mine", "version": version, "status": state, "default": version == default}
            for version, state in self.states.items()
        ]


@pytest.fixture
def options(tmp_path: Path) -> list[str]:
    (tmp_path / "config.properties").write_text("".join(f"{key}=http://127.0.0.1:9\n" for key in PORT_KEYS))
    for version in VERSIONS:
        pack(tmp_path / f"{version}.mar", name="mine", version=version)
    return [f"--config={tmp_path / 'config.properties'}", f"--model-store={tmp_path}", "--model=mine"]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[int]:
    status = Status(tmp_path / releases.FILE_NAME)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"models": status.models()}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_a_release_goes_on_step_by_step_and_back(
    options: list[str], served: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*options, f"--status-port={served}"]
    steps = [
        (["--version=1.0"], "mine 1.0 answers; also there: 1.1, 1.2."),
        (["--version=1.1", "--shadow=100"], "mine 1.0 answers, and 1.1 gets copies of 100 % of the requests"),
        (["--version=1.1", "--share=10"], "mine 1.0 answers 90 % of the requests and 1.1 10 %"),
        ([], "mine 1.0 answers 90 % of the requests and 1.1 10 %"),
        (["--version=1.1"], "mine 1.1 answers; also there: 1.0, 1.2."),
        (["--back"], "mine 1.0 answers; also there: 1.1, 1.2."),
    ]
    for order, sentence in steps:
        assert program.main(["release", *options, *order]) == 0
        assert capsys.readouterr().out.startswith(sentence)
    assert releases.load(tmp_path / releases.FILE_NAME) == {"mine": Release("1.0", "1.1")}


def test_a_version_that_the_running_service_cannot_serve_changes_nothing(
    options: list[str], served: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(["release", *options, f"--status-port={served}", "--version=1.2"]) == 2
    assert "has no ready mine 1.2 (failed): nothing has changed" in capsys.readouterr().err
    assert not (tmp_path / releases.FILE_NAME).exists()


def test_without_a_service_it_holds_for_one_that_it_cannot_see_or_from_the_next_start(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main(["release", *options, f"--status-port={free_ports(1)[0]}", "--version=1.0"]) == 0
    said = capsys.readouterr().out
    assert "No service answers" in said and "as in a container, follows by itself" in said


def test_an_offset_shifts_every_port_that_is_not_given(tmp_path: Path) -> None:
    config = tmp_path / "config.properties"
    config.write_text(
        "inference_address=http://127.0.0.1:8080\nmanagement_address=http://127.0.0.1:8081/\n"
        "metrics_address=http://127.0.0.1:8082\ngrpc_inference_port=7070\ngrpc_management_port=7071\n"
    )
    settings = resolve(
        "mine", tmp_path, config, {"port_offset": 100, "metrics_port": 9000}, {"VISIONSERVE_ACCESS_PORT": "0"}
    )
    assert settings.ports == dict(zip(PORTS, (8180, 8181, 9000, 7170, 7171), strict=True))
    assert (settings.status_port, settings.access_port) == (8183, 0)
    # What TorchServe itself reads.
    assert settings.overrides["TS_INFERENCE_ADDRESS"] == "http://127.0.0.1:8180"
    assert settings.overrides["TS_GRPC_MANAGEMENT_PORT"] == "7171"
    assert resolve("mine", tmp_path, config, {}, {"VISIONSERVE_PORT_OFFSET": "1"}).ports["port"] == 8081
    assert resolve("mine", tmp_path, config, {}, {}).overrides == {}
    for bad in ("-1", "x", "50001"):
        with pytest.raises(SetupError, match="--port-offset"):
            resolve("mine", tmp_path, config, {"port_offset": bad}, {})
