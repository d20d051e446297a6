"""A real service behind a real gateway, watched by a real Prometheus: first well, then in trouble.

The tests of this file run in their order: trouble leaves its marks in the counters.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests import queries
from tests.e2e.conftest import E2E, Service
from tests.e2e.gateway import gateways
from tests.e2e.gateway.gateways import NEEDS_NGINX, Gateway
from tests.e2e.monitoring.prometheus import (
    NEEDS_PROMETHEUS,
    Prometheus,
    Receiver,
    alert_receiver,
    alertmanager,
    prometheus,
    until,
)

pytestmark = [*E2E, NEEDS_NGINX, *NEEDS_PROMETHEUS]

# Seconds: two scrapes and two evaluations take four; the rest is patience with busy cores.
TIMEOUT_S = 120
ALERTS = queries.alerts()
RECORDED = sorted({rule["record"] for rule in queries.all_rules() if "record" in rule})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("monitoring")


@pytest.fixture(scope="module")
def behind(service: Service) -> dict[str, str]:
    """What is behind a gateway to the service."""
    ports = {"inference": "port", "status": "status_port", "records": "access_port"}
    return {option: f"127.0.0.1:{service.ports[port]}" for option, port in ports.items()}


@pytest.fixture(scope="module")
def gateway(behind: dict[str, str], folder: Path) -> Iterator[Gateway]:
    with gateways.running(folder, **behind) as found:
        yield found


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with alert_receiver() as found:
        yield found


@pytest.fixture(scope="module")
def manager(receiver: Receiver, folder: Path) -> Iterator[str]:
    with alertmanager(folder, receiver.url) as address:
        yield address


@pytest.fixture(scope="module")
def watched(service: Service, manager: str, folder: Path) -> Iterator[Prometheus]:
    with prometheus(folder, f"127.0.0.1:{service.ports['status_port']}", manager) as found:
        yield found


@pytest.fixture(scope="module")
def traffic(gateway: Gateway, watched: Prometheus, photographs: list[bytes]) -> None:
    """Photographs and bad bodies, before and after a first scrape: a rate takes two samples."""
    for _ in range(2):
        for photograph in photographs:
            assert gateway.put(photograph).status_code == 200
        assert gateway.put(photographs[0], "explanations/flowers").status_code == 200
        assert gateway.put(b"no image").status_code == 415
        assert gateway.put(photographs[0], "predictions/birds").status_code == 404
        assert gateway.get("models").status_code == 200
        until(lambda: watched.has_data("visionserve_predictions_total"), lambda: "nothing was scraped", TIMEOUT_S)


def all_have_data(watched: Prometheus, asked: list[str]) -> None:
    """Wait until every query has a sample that is a number."""
    missing = list(asked)

    def settled() -> bool:
        missing[:] = [expr for expr in missing if not watched.has_data(expr)]
        return not missing

    until(settled, lambda: "no data for\n" + "\n".join(missing), TIMEOUT_S)


def parts(expr: str) -> list[str]:
    """What an alert compares, without what it compares with."""
    sides, depth, start = [], 0, 0
    for match in re.finditer(r"[()]|\b(?:and|unless)\b(?:\s+on\s*\([^)]*\))?", expr):
        depth += {"(": 1, ")": -1}.get(match[0], 0)
        if depth == 0 and match[0] not in "()":
            sides.append(expr[start : match.start()])
            start = match.end()
    sides.append(expr[start:])
    return [re.split(r"\s(?:[<>]=?|==)\s", side)[0].strip() for side in sides if not side.strip().startswith("absent(")]


@pytest.mark.usefixtures("traffic")
def test_every_recording_rule_has_data(watched: Prometheus) -> None:
    all_have_data(watched, RECORDED)


@pytest.mark.usefixtures("traffic")
@pytest.mark.parametrize("title", sorted(queries.panels()))
def test_every_panel_of_the_dashboard_has_data(watched: Prometheus, title: str) -> None:
    all_have_data(watched, queries.panels()[title])


@pytest.mark.usefixtures("traffic")
def test_the_autoscalers_queries_have_data(watched: Prometheus) -> None:
    asked = queries.autoscalers()
    assert len(asked) >= 2, "KEDA's and the adapter's"
    all_have_data(watched, asked)


@pytest.mark.usefixtures("traffic")
@pytest.mark.parametrize("name", sorted(ALERTS))
def test_what_an_alert_looks_at_is_there(watched: Prometheus, name: str) -> None:
    seen = [part for rule in ALERTS[name] for part in parts(rule["expr"])]
    all_have_data(watched, seen)


@pytest.mark.usefixtures("traffic")
def test_a_service_that_is_well_raises_no_alert(watched: Prometheus) -> None:
    # How fast it answers depends on what else these cores do.
    assert watched.query('ALERTS{slo!="latency"}') == []
    assert watched.has_data("visionserve:images:images1d > 0")


@pytest.mark.usefixtures("traffic")
def test_failed_answers_reach_the_person_on_call(
    watched: Prometheus, manager: str, receiver: Receiver, behind: dict[str, str], folder: Path, photograph: bytes
) -> None:
    (folder / "broken").mkdir()
    # This gateway has no TorchServe behind it, but its records go where the others' go.
    with gateways.running(folder / "broken", **behind | {"inference": gateways.NOWHERE}) as broken:
        for _ in range(3):
            assert [broken.put(photograph).status_code for _ in range(10)] == [503] * 10
            until(lambda: watched.has_data('gateway_requests_total{status="503"}'), lambda: "no 503 counted", TIMEOUT_S)
    until(
        lambda: "VisionserveAvailabilityBurnFast" in receiver.names("on-call"),
        lambda: f"alerts: {watched.query('ALERTS')}, receiver: {receiver.alerts}",
        TIMEOUT_S,
    )
    labels, notes = next(
        (alert["labels"], alert["annotations"]) for name, alert in receiver.alerts if name == "on-call"
    )
    assert (labels["severity"], labels["slo"], labels["namespace"]) == ("critical", "availability", "visionserve")
    assert re.match(r"[\d.]+% of the answers of the last (1h|6h) were 5xx\.", notes["description"])
    until(
        lambda: _inhibited(manager, "VisionserveAvailabilityBurnSlow"), lambda: "the slow burn alerted too", TIMEOUT_S
    )


def _inhibited(manager: str, name: str) -> bool:
    alerts = requests.get(f"http://{manager}/api/v2/alerts", timeout=30).json()
    found = [alert for alert in alerts if alert["labels"]["alertname"] == name]
    return bool(found) and all(alert["status"]["inhibitedBy"] for alert in found)
