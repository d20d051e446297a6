import gzip
import http.client
import json
import re
import socket
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from launcher import access_log, api_page, metadata, status_server
from launcher import archive as archives
from launcher.access_log import MalformedRecord, Record
from launcher.addresses import bindable
from launcher.archive import Archive
from launcher.metrics import Metrics
from launcher.settings import SetupError
from launcher.status_server import Service
from launcher.torchserve_api import NoAnswer
from launcher.workers import WorkerMonitor
from tests.e2e.conftest import free_ports
from tests.unit.launcher.test_workers import FakeServer, run

ROSES = Archive("roses", "1.0", "ab" * 32, {"name": "roses", "labels": ["tea", "dog"]})
TORCHSERVE = "# HELP ts_queue Queue\n# TYPE ts_queue counter\nts_queue 1.0\n"
TORCHSERVE += "# TYPE visionserve_ready gauge\nvisionserve_ready 7.0"


class Scene:
    """A status service over a fake TorchServe."""

    def __init__(self, folder: Path) -> None:
        self.server = FakeServer()
        self.monitor = WorkerMonitor(self.server, [ROSES])
        self.metrics = Metrics(self.monitor)
        self.runs = True
        self.torchserve_metrics: str | None = ""
        self.openapi = folder / "openapi.yaml"
        self.service = Service(self.monitor, self.metrics, lambda: self.runs, self._metrics_of_torchserve, self.openapi)

    def get(self, path: str) -> tuple[int, Any]:
        reply = self.service.get(path, "id-1")
        return reply.status, json.loads(reply.body) if reply.type == "application/json" else reply.body.decode()

    def serve(self) -> None:
        run(self.monitor, self.server, 1, 2)

    def _metrics_of_torchserve(self, _timeout_s: float) -> str:
        if self.torchserve_metrics is None:
            raise NoAnswer("timed out")
        return self.torchserve_metrics


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_it_lives_while_torchserve_runs_and_workers_may_come_back(scene: Scene) -> None:
    assert scene.get("/livez") == scene.get("/v2/health/live") == (200, {"live": True})
    scene.monitor.models["roses/1.0"].failure = "gone"
    assert scene.get("/livez") == (503, {"live": False, "reason": "gone"})
    scene.runs = False
    assert scene.get("/livez") == (503, {"live": False, "reason": "TorchServe has ended"})


def test_readiness_says_what_is_missing(scene: Scene) -> None:
    status_code, content = scene.get("/readyz")
    assert scene.get("/health") == (status_code, content)
    assert (status_code, content["ready"]) == (503, False)
    # Also at the gateway's /v1/models/roses.
    status_code, content_v1 = scene.get("/models/roses")
    assert (status_code, content_v1["name"], content_v1["ready"]) == (200, "roses", False)
    assert "0 of its workers of roses 1.0" in content["reason"]
    assert scene.get("/v2/models/roses/ready") == (503, {"name": "roses", "ready": False})
    scene.serve()
    assert scene.get("/readyz") == scene.get("/v2/health/ready") == (200, {"ready": True})
    assert scene.get("/v2/models/roses/versions/1.0/ready") == (200, {"name": "roses", "ready": True})


def test_models_are_summed_up_and_described(scene: Scene) -> None:
    scene.serve()
    summary: dict[str, Any] = {"name": "roses", "version": "1.0", "digest": "ab" * 32, "default": True}
    summary |= {"status": "ready", "workers": {"ready": 2, "total": 2}}
    assert scene.get("/models") == (200, {"models": [summary]})
    assert (
        scene.get("/models/roses")
        == scene.get("/models/roses/1.0")
        == (200, summary | {"ready": True, "card": ROSES.card})
    )
    assert scene.get("/v2") == (200, {"name": "visionserve", "version": "1.0.0", "extensions": ["binary_tensor_data"]})


@pytest.mark.parametrize(
    "path", ["/", "/models/", "/models/tulips", "/models/roses/2", "/models/roses/1.0/card", "/openapi.yaml", "/drain"]
)
def test_what_is_not_there_is_an_error_of_the_usual_form(scene: Scene, path: str) -> None:
    status_code, content = scene.get(path)
    assert (status_code, content["error"]["code"], content["request_id"]) == (404, "not_found", "id-1")


@pytest.mark.parametrize("path", ["/v2/models/roses/versions/2", "/v2/models", "/v2/models/tulips/ready", "/v2/"])
def test_v2_is_told_in_its_own_form(scene: Scene, path: str) -> None:
    status_code, content = scene.get(path)
    assert (status_code, content["code"], content["request_id"]) == (404, "not_found", "id-1")
    assert content["error"] == f"There is nothing at {path}."


def test_the_description_of_the_api_is_served_where_it_exists(scene: Scene) -> None:
    scene.openapi.write_text("openapi: 3.1.0\n")
    assert scene.get("/openapi.yaml") == (200, "openapi: 3.1.0\n")


def test_the_page_to_try_the_api_loads_nothing_from_elsewhere(scene: Scene) -> None:
    page = scene.service.get("/docs", "id-1")
    for address in re.findall(r'(?:src|href)="([^"]+)"', page.body.decode()):
        if not address.startswith(("data:", "openapi")):
            file = scene.service.get(f"/{address}", "id-1")
            assert (file.status, gzip.decompress(file.gzipped)) == (200, file.body), address
    assert "default-src 'none'; script-src 'self';" in page.headers["Content-Security-Policy"]
    assert "connect-src 'self'" in page.headers["Content-Security-Policy"]
    back = scene.service.get("/docs/", "id-1")
    assert (back.status, back.headers["Location"]) == (308, "../docs")
    assert {scene.get(f"/docs/{name}")[0] for name in ("../openapi.yaml", "index.html", "swagger-editor.css")} == {404}


def test_without_its_package_there_is_no_page(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_page, "_PACKAGE", "nothing_of_this_name")
    api_page.files.cache_clear()
    assert scene.get("/docs")[0] == 404
    api_page.files.cache_clear()


@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_this_machine_may_ask_for_a_drain(scene: Scene, client: str) -> None:
    assert scene.service.post("/drain", client, {}, "id-1").status == 202
    assert scene.get("/readyz") == (503, {"ready": False, "reason": "draining"})


@pytest.mark.parametrize("client", ["10.0.0.7", "::ffff:10.0.0.7", "fe80::1"])
def test_others_may_not(scene: Scene, client: str) -> None:
    assert scene.service.post("/drain", client, {}, "id-1").status == 403
    assert scene.monitor.draining_since is None


def test_metrics_are_one_text_that_prometheus_can_read(scene: Scene) -> None:
    scene.serve()
    scene.torchserve_metrics = TORCHSERVE
    _, text = scene.get("/metrics")
    names = re.findall(r"(?m)^# TYPE (\S+)", text)
    assert len(names) == len(set(names))
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["ts_queue"].samples[0].value == 1
    assert families["visionserve_ready"].samples[0].value == 7
    workers = {sample.labels["state"]: sample.value for sample in families["visionserve_workers"].samples}
    assert workers == {"ready": 2, "other": 0}
    assert not [name for name in names if name.endswith("_created")]


def test_ours_are_there_when_torchserve_does_not_tell_its_own(scene: Scene) -> None:
    scene.torchserve_metrics = None
    status_code, text = scene.get("/metrics")
    assert status_code == 200
    assert "visionserve_ready 0.0" in text


def test_a_restart_is_counted(scene: Scene) -> None:
    scene.serve()
    scene.server.pids = [2]
    scene.monitor.tick()
    assert 'visionserve_worker_restarts_total{model="roses",version="1.0"} 1.0' in scene.get("/metrics")[1]


@pytest.fixture
def port(scene: Scene) -> Iterator[int]:
    (chosen,) = free_ports(1)
    with status_server.serve("127.0.0.1", chosen, scene.service) as served:
        yield served


def test_it_answers_over_http_and_forgets_what_it_was_sent(scene: Scene, port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for method, body, expected in (
        ("GET", None, 503),
        ("HEAD", None, 503),
        ("POST", b"x" * 100, 404),
        ("GET", None, 503),
    ):
        connection.request(method, "/readyz?verbose", body)
        response = connection.getresponse()
        content = response.read()
        assert response.status == expected
        assert bool(content) == (method != "HEAD")
        assert response.getheader("Server") == "visionserve"
    connection.request("PATCH", "/readyz")
    assert connection.getresponse().status == 501
    connection.close()
    assert scene.monitor.draining_since is None


def test_a_crowd_of_silent_clients_keeps_nobody_out(port: int) -> None:
    crowd = [socket.create_connection(("127.0.0.1", port)) for _ in range(2 * status_server._MOST_CLIENTS)]
    started = time.monotonic()
    for _ in range(20):
        assert _get(port) == 200
    assert time.monotonic() - started < 10
    for silent in crowd:
        silent.close()


def test_without_ipv6_everything_is_all_of_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    assert [bindable(host) for host in ("::", "::1", "127.0.0.1")] == ["0.0.0.0", "::1", "127.0.0.1"]


@pytest.mark.parametrize("host", ["::1", "::"])
def test_it_listens_on_an_ipv6_address(scene: Scene, host: str) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as probe:
        port = probe.getsockname()[1]
    with status_server.serve(host, port, scene.service):
        for address in ("::1", "127.0.0.1") if host == "::" else ("::1",):
            connection = http.client.HTTPConnection(address, port, timeout=20)
            connection.request("GET", "/livez")
            assert connection.getresponse().status == 200
            connection.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:8083"}, 202),
        ({"host": "localhost:8083", "origin": "http://localhost:8083"}, 202),
        ({"host": "[::1]:8083"}, 202),
        ({"host": "127.0.0.1:8083", "origin": "https://example.org"}, 403),
        ({"host": "127.0.0.1:8083", "origin": "null"}, 403),
        ({"host": "rebound.example.org:8083"}, 403),
        ({"host": "localhost.example.org"}, 403),
        ({"host": "[nonsense"}, 403),
    ],
    ids=str,
)
def test_a_browser_cannot_be_made_to_ask_for_a_drain(scene: Scene, headers: dict[str, str], status: int) -> None:
    assert scene.service.post("/drain", "127.0.0.1", headers, "id-1").status == status
    assert (scene.monitor.draining_since is None) == (status == 403)


def _get(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def test_a_place_that_is_taken_is_one_sentence(scene: Scene) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(SetupError, match=f"127.0.0.1:{port} .* --status-port"),
            status_server.serve("127.0.0.1", port, scene.service),
        ):
            pass
    with status_server.serve("127.0.0.1", 0, scene.service) as nothing:
        assert nothing == 0


def datagram(**changes: Any) -> bytes:
    content = {"route": "predictions", "status": 200, "duration_s": 0.5, "upstream_s": "0.30", "timing": ""}
    return b"<190>Nov 21 09:00:00 gateway: " + json.dumps(content | changes).encode()


def test_a_record_has_the_time_in_the_queue_beside_the_handlers_own() -> None:
    timing = "decode;dur=1.90, inference;dur=2.20, total;dur=100.00"
    assert access_log.parse(datagram(timing=timing)) == Record("predictions", 200, 0.5, pytest.approx(0.2))  # type: ignore[arg-type]
    assert access_log.parse(datagram(timing=timing, upstream_s="9.0, 0.30")).queue_s == pytest.approx(0.2)
    assert access_log.parse(datagram(timing="total;dur=900.0")).queue_s == 0
    assert access_log.parse(datagram(timing=timing, upstream_s="-")).queue_s is None
    assert access_log.parse(datagram()).queue_s is None
    assert access_log.parse(datagram(route="/etc/passwd")).route == "other"
    assert access_log.parse(datagram(places=12)).places == 12


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"no brace",
        b"{",
        b"[1]",
        b"\xff\xfe{\xff}",
        b'gateway: {"route": "ui"}',
        b"{" * 60_000,
        datagram(status="x"),
        datagram(status=99),
        datagram(status=1e400),
        datagram(duration_s=-1),
        datagram(duration_s="NaN"),
        datagram(duration_s=None),
        datagram(places=-1),
        datagram(places=1e400),
    ],
    ids=lambda data: str(data[:12]),
)
def test_a_malformed_record_is_told(broken: bytes) -> None:
    with pytest.raises(MalformedRecord):
        access_log.parse(broken)


def test_datagrams_become_counts_and_broken_ones_do_no_harm(scene: Scene) -> None:
    port = free_ports(1)[0]
    assert "gateway_places" not in scene.get("/metrics")[1], "no gateway has stated them"
    with access_log.listen(port, scene.metrics), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for data in (b"", b"{", datagram(), datagram(route="ui", status=404, places=12)):
            sender.sendto(data, ("127.0.0.1", port))
        with pytest.raises(SetupError, match="--access-port"), access_log.listen(port, scene.metrics):
            pass
        deadline = time.monotonic() + 20
        while 'route="ui"' not in scene.get("/metrics")[1] and time.monotonic() < deadline:
            time.sleep(0.05)
    text = scene.get("/metrics")[1]
    assert "gateway_places 12.0" in text
    assert "gateway_malformed_records_total 2.0" in text
    assert 'gateway_requests_total{route="ui",status="404"} 1.0' in text
    assert 'gateway_request_duration_seconds_bucket{le="0.5",route="predictions"} 1.0' in text
    with access_log.listen(port, scene.metrics):
        pass


def test_an_archive_tells_its_version_its_card_and_whether_it_needs_a_gpu(tmp_path: Path) -> None:
    path = tmp_path / "any.mar"
    _pack(path, {"device": "cuda"}, {"model": {"modelName": "roses", "modelVersion": 2}})
    archive = archives.read(path)
    assert (archive.name, archive.version, archive.needs_gpu) == ("roses", "2", True)


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all"])
def test_a_file_that_is_no_archive_of_ours_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "roses.mar"
    path.write_bytes(content)
    with pytest.raises(SetupError, match=r"roses\.mar is not a visionserve archive"):
        archives.read(path)
    _pack(path, {}, {"model": {"modelName": "roses"}})
    with pytest.raises(SetupError, match="modelVersion"):
        archives.read(path)


def _pack(path: Path, card: dict[str, Any], manifest: dict[str, Any]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("card.json", json.dumps(card))
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))


def test_quick_refusals_do_not_hide_slow_answers(scene: Scene) -> None:
    for status_code, duration_s, count in ((200, 0.6, 10), (429, 0.001, 900), (204, 0.001, 50), (503, 0.002, 90)):
        for _ in range(count):
            scene.metrics.count(Record("predictions", status_code, duration_s, None))
    values = {
        sample.name + sample.labels.get("le", ""): sample.value
        for family in text_string_to_metric_families(scene.get("/metrics")[1])
        for sample in family.samples
        if sample.labels.get("route") == "predictions"
    }
    assert values["gateway_request_duration_seconds_count"] == 10
    assert values["gateway_request_duration_seconds_bucket0.25"] == 0
    # In flight is of everything: seconds per second.
    assert values["gateway_request_seconds_total"] == pytest.approx(10 * 0.6 + 0.9 + 0.05 + 0.18)


@pytest.mark.parametrize(("card", "expected"), [({}, True), ({"heatmap": False}, False)])
def test_a_heatmap_is_an_output_of_models_that_have_class_maps(card: dict[str, bool], expected: bool) -> None:
    model = Archive("roses", "1.0", "", card)
    monitor = WorkerMonitor(FakeServer(), [model])
    outputs = metadata.model_metadata(monitor, monitor.models[model.key])["outputs"]
    assert ("heatmap" in {output["name"] for output in outputs}) is expected
