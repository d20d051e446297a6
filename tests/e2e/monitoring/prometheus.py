"""A real Prometheus and a real Alertmanager on free ports, configured from monitoring/, and somebody whom they tell."""

import contextlib
import json
import math
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from tests.e2e.conftest import ROOT, free_ports

MONITORING = ROOT / "monitoring"
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
# As a PodMonitor adds them.
POD = {"namespace": "visionserve", "pod": "visionserve-0"}
PROGRAMS = {"prometheus": "prometheus", "prometheus-alertmanager": "prometheus-alertmanager"}
NEEDS_PROMETHEUS = [
    pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is missing: install Debian's {package}")
    for program, package in PROGRAMS.items()
]


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    url: str

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The samples that an expression has now."""
        answer = requests.get(f"{self.url}/api/v1/query", params={"query": expr}, timeout=30).json()
        assert answer["status"] == "success", f"{expr}: {answer}"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def has_data(self, expr: str) -> bool:
        """Whether an expression has a sample that is a number."""
        return any(math.isfinite(float(sample["value"][1])) for sample in self.query(expr))


def until(true: Callable[[], bool], what: Callable[[], str], timeout_s: float) -> None:
    """Wait until something holds; fail with ``what`` is wrong otherwise."""
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            pytest.fail(what())
        time.sleep(0.5)


@contextlib.contextmanager
def prometheus(folder: Path, target: str, alertmanager: str) -> Iterator[Prometheus]:
    """Run Prometheus with our configuration, every second instead of every fifteen."""
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(_hurried(path, folder)) for path in sorted(MONITORING.glob(config["rule_files"][0]))]
    config["alerting"]["alertmanagers"][0]["static_configs"] = [{"targets": [alertmanager]}]
    (ours,) = (job for job in config["scrape_configs"] if job["job_name"] == "visionserve")
    ours["static_configs"] = [{"targets": [target], "labels": POD}]
    config["scrape_configs"] = [ours]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_ports(1)[0]}"
    options = [f"--config.file={file}", f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address={address}"]
    with _running(["prometheus", *options], folder / "prometheus.log", f"http://{address}/-/ready"):
        yield Prometheus(f"http://{address}")


def _hurried(path: Path, folder: Path) -> Path:
    """A copy of a rule file whose groups keep no time of their own and whose alerts do not wait."""
    content = yaml.safe_load(path.read_text())
    for group in content["groups"]:
        group.pop("interval", None)
        for rule in group["rules"]:
            rule.pop("for", None)
    copy = folder / path.name
    copy.write_text(yaml.safe_dump(content))
    return copy


@contextlib.contextmanager
def alertmanager(folder: Path, webhook: str) -> Iterator[str]:
    """Run Alertmanager with our routes, every receiver being the webhook with its own name; yields its address."""
    config = yaml.safe_load((MONITORING / "alertmanager.yml").read_text())
    config["route"]["group_wait"] = "1s"
    for receiver in config["receivers"]:
        receiver["webhook_configs"] = [{"url": f"{webhook}/{receiver['name']}"}]
    file = folder / "alertmanager.yml"
    file.write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_ports(1)[0]}"
    options = [f"--config.file={file}", f"--storage.path={folder / 'alerts'}", f"--web.listen-address={address}"]
    command = ["prometheus-alertmanager", *options, "--cluster.listen-address="]
    with _running(command, folder / "alertmanager.log", f"http://{address}/-/ready"):
        yield address


@contextlib.contextmanager
def _running(command: list[str], log: Path, ready: str) -> Iterator[None]:
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
    try:
        until(lambda: process.poll() is not None or _answers(ready), log.read_text, START_TIMEOUT_S)
        assert process.poll() is None, log.read_text()
        yield
    finally:
        process.terminate()
        process.wait(timeout=STOP_TIMEOUT_S)


def _answers(url: str) -> bool:
    with contextlib.suppress(requests.RequestException):
        return requests.get(url, timeout=5).ok
    return False


@dataclass(frozen=True)
class Receiver:
    """A receiver of alerts: where it listens, and what it received, by the receiver's name."""

    url: str
    alerts: list[tuple[str, dict[str, Any]]]

    def names(self, receiver: str) -> set[str]:
        return {alert["labels"]["alertname"] for name, alert in self.alerts if name == receiver}


@contextlib.contextmanager
def alert_receiver() -> Iterator[Receiver]:
    alerts: list[tuple[str, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            alerts.extend((self.path.strip("/"), alert) for alert in content["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *_: object) -> None:  # noqa: A002
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield Receiver(f"http://127.0.0.1:{server.server_port}", alerts)
        finally:
            server.shutdown()
            thread.join()
