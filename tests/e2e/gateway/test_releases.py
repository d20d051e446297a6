"""A version that gets a share of the requests, or copies of them; and changes of that under load."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from gateway import render
from launcher import releases
from launcher.releases import Release
from tests.e2e.conftest import E2E
from tests.e2e.gateway.gateways import NEEDS_NGINX, Behind, Gateway, Reply, Seen, running
from visionserve.client import Client, ResponseError, ServiceUnreachable

pytestmark = [*E2E, NEEDS_NGINX]
PROGRAM = render.nginx()
KEEPS = PROGRAM is not None and render.version(PROGRAM) >= (1, 27, 4)


def answer(seen: Seen) -> Reply:
    version = seen.path.split("/")[3] if seen.path.count("/") == 3 else "1.0"
    headers = {"Server-Timing": "total;dur=1.00"}
    if "x-log-prediction" in seen.headers:
        headers["X-Prediction"] = json.dumps({"version": version, "best": [{"label": "rose", "probability": 0.5}]})
    if version == "slow":
        time.sleep(1)
    if version == "broken":
        return Reply(500, b"broken", headers)
    content = {
        "predictions": [{"label": "rose", "index": 0, "probability": 0.5}],
        "novelty": 0.1,
        "model": {"name": "flowers", "version": version},
    }
    return Reply(200, json.dumps(content).encode(), {"Content-Type": "application/json", **headers})


@pytest.fixture
def server() -> Iterator[Behind]:
    behind = Behind(answer)
    yield behind
    behind.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / releases.FILE_NAME


def version(response: requests.Response) -> str:
    assert response.status_code == 200
    text: str = response.json()["model"]["version"]
    return text


def await_log(gateway: Gateway, text: str, count: int = 1) -> None:
    deadline = time.monotonic() + 30
    while gateway.log.read_text().count(text) < count:
        assert time.monotonic() < deadline, f"{text!r} is not in the log:\n{gateway.log.read_text()}"
        time.sleep(0.05)


def test_a_share_goes_to_the_candidate_and_a_named_version_to_itself(
    server: Behind, file: Path, tmp_path: Path
) -> None:
    releases.save(file, {"flowers": Release("1.0", candidate="1.1", share=25)})
    with running(tmp_path, server.address, releases_file=file) as gateway, requests.Session() as session:
        paths = ("predictions/flowers", "explanations/flowers", "v2/models/flowers/infer", "v1/models/flowers:predict")
        versions = Counter(version(session.put(gateway.url(paths[n % 4]), data=b"x", timeout=60)) for n in range(400))
        # Four standard deviations of a binomial count.
        assert versions["1.1"] == pytest.approx(100, abs=4 * (400 * 0.25 * 0.75) ** 0.5)
        for path in ("predictions/flowers/1.0", "v2/models/flowers/versions/1.0/infer"):
            assert {version(session.put(gateway.url(path), data=b"x", timeout=60)) for _ in range(40)} == {"1.0"}
        assert {
            version(session.put(gateway.url("predictions/flowers2"), data=b"x", timeout=60)) for _ in range(40)
        } == {"1.0"}
        response = gateway.put(b"x", x_request_id="shared")
        assert "X-Prediction" not in response.headers
        logged = json.loads(gateway.log_line("shared")["prediction"])
        assert (logged["version"], logged["best"][0]["label"]) == (version(response), "rose")


@pytest.mark.parametrize("candidate", ["1.1", "broken", "slow"])
def test_a_shadow_gets_copies_and_nobody_gets_its_answers(
    server: Behind, file: Path, tmp_path: Path, candidate: str
) -> None:
    releases.save(file, {"flowers": Release("1.0", candidate=candidate, shadow=100)})
    body = bytes(range(256)) * 400
    with running(tmp_path, server.address, releases_file=file) as gateway:
        for number in range(6):
            started = time.monotonic()
            assert version(gateway.put(body, x_request_id=f"r{number}")) == "1.0"
            assert candidate != "slow" or time.monotonic() - started < 1
        await_log(gateway, '"shadow":', 6)
    copies = [seen for seen in server.seen if seen.path == f"/predictions/flowers/{candidate}"]
    assert [seen.body for seen in copies] == [body] * 6
    lines = [json.loads(line) for line in gateway.log.read_text().splitlines() if '"shadow":' in line]
    assert sorted(line["request_id"] for line in lines) == [f"r{number}" for number in range(6)]
    assert {json.loads(line["prediction"])["version"] for line in lines} == {candidate}
    assert {line["status"] for line in lines} == {"500" if candidate == "broken" else "200"}


def test_changes_of_the_file_are_followed_under_load_and_lose_no_request(
    server: Behind, file: Path, tmp_path: Path
) -> None:
    with running(tmp_path, server.address, releases_file=file, per_client=64) as gateway:
        stop = threading.Event()
        outcomes: Counter[str] = Counter()

        def load(ask: Callable[[], str]) -> None:
            while not stop.is_set():
                try:
                    outcomes[ask()] += 1
                except (requests.RequestException, AssertionError, ResponseError, ServiceUnreachable) as error:
                    outcomes[repr(error)] += 1

        def connecting() -> None:
            load(lambda: version(gateway.put(b"x" * 3000)))

        def keeping() -> None:
            # A reload may close a kept connection just as a request is sent on it: the client sends it again.
            with Client(gateway.url("")) as client:
                load(lambda: client.predict(b"x" * 3000, "flowers").model.version)

        threads = [threading.Thread(target=target) for target in (connecting, keeping, connecting, keeping)]
        for thread in threads:
            thread.start()
        steps = [
            (Release("1.0", candidate="1.1", share=50), "50 % of the requests for flowers go to version 1.1."),
            (Release("1.0", candidate="1.1", shadow=100), "Copies of 100 % of the requests for flowers"),
            (Release("1.0", candidate="1.1", share=100), "100 % of the requests for flowers go to version 1.1."),
            (Release("1.0"), "All requests that name no version go to the default one."),
        ]
        for release, sentence in steps:
            said = gateway.log.read_text().count(sentence)
            releases.save(file, {"flowers": release})
            await_log(gateway, sentence, said + 1)
            time.sleep(1)
        stop.set()
        for thread in threads:
            thread.join(60)
        assert set(outcomes) == {"1.0", "1.1"}, outcomes
        assert min(outcomes.values()) > 10
        # What cannot be is said, and everything stays.
        file.write_text("{")
        await_log(gateway, "Until then requests go where they went before.")
        assert version(gateway.put(b"x")) == "1.0"


@pytest.mark.skipif(
    not KEEPS, reason="nginx before 1.27.4 closes idle kept connections at a reload: install 1.27.4 or newer"
)
def test_a_reload_costs_kept_connections_no_request(server: Behind, file: Path, tmp_path: Path) -> None:
    """Sent without a second try: each connection is ended by an answer that says so."""
    request = b"PUT /predictions/flowers HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
    outcomes: Counter[str] = Counter()
    stop = threading.Event()
    with running(tmp_path, server.address, releases_file=file, per_client=64) as gateway:

        def keeping() -> None:
            connection = None
            while not stop.is_set():
                connection = connection or gateway.connect()
                try:
                    connection.sendall(request)
                    answer = connection.recv(65536)
                except OSError as error:
                    answer = repr(error).encode()
                outcomes["answered" if answer.startswith(b"HTTP/1.1 200 ") else f"lost: {answer!r}"] += 1
                if b"Connection: keep-alive" not in answer:
                    outcomes["ended"] += 1
                    connection.close()
                    connection = None
                time.sleep(0.002)
            if connection is not None:
                connection.close()

        threads = [threading.Thread(target=keeping) for _ in range(8)]
        for thread in threads:
            thread.start()
        for number in range(6):
            releases.save(file, {"flowers": Release("1.0", candidate="1.1", share=10 + number)})
            await_log(gateway, f"{10 + number} % of the requests")
            time.sleep(0.5)
        stop.set()
        for thread in threads:
            thread.join(60)
    assert set(outcomes) == {"answered", "ended"}, outcomes
    assert outcomes["ended"] >= 6
