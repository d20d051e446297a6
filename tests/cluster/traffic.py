"""A constant load through the Service, from a pod of the cluster, and what became of it."""

import base64
import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.cluster.kube import ROOT, TOOLS_NAMESPACE, apply, get, kubectl, through_proxy
from tests.cluster.restricted import pod_spec

RATE = 4.0
_SMOKE = ROOT / "scripts" / "smoke_test.sh"
_PROGRAM = ROOT / "tests" / "cluster" / "client.py"


@dataclass
class Outcome:
    """How many requests were sent, and what became of them: statuses, or what there was instead of one."""

    sent: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def lost(self) -> dict[str, int]:
        """Everything but the answer; a request without any outcome too."""
        pending = self.sent - sum(self.outcomes.values())
        unanswered = {"no outcome": pending} if pending else {}
        return {name: count for name, count in self.outcomes.items() if name != "200"} | unanswered

    def __str__(self) -> str:
        lost = sum(self.lost.values())
        return f"{self.sent} requests in {self.seconds:.0f} s, {lost} lost {self.lost or ''}".strip()


@dataclass(frozen=True)
class Traffic:
    """The client's pod, and the image that it sends."""

    address: str
    image: bytes

    @property
    def url(self) -> str:
        return f"http://{self.address}/predictions/flowers"

    def send(self, path: str = "/predictions/flowers", body: bytes | None = None, **settings: Any) -> dict[str, Any]:
        """Send one request; the image if nothing else is said."""
        content = self.image if body is None else body
        request = {"url": f"http://{self.address}{path}", "body": base64.b64encode(content).decode(), **settings}
        return self._ask("send", request)

    def smoke(self, key: str = "") -> dict[str, Any]:
        """Run the smoke test in the cluster."""
        return self._ask("smoke", {"url": f"http://{self.address}", "key": key})

    @contextlib.contextmanager
    def load(self, rate: float = RATE, clients: int = 0, **headers: str) -> Iterator[Outcome]:
        """Send requests meanwhile; afterwards the outcome is what became of all of them."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = {"url": self.url, "body": base64.b64encode(self.image).decode(), "headers": named}
        outcome, started = Outcome(), time.monotonic()
        self._ask("start", {"request": request, "rate": 0 if clients else rate, "clients": clients})
        try:
            yield outcome
            # What a change breaks late is seen too.
            time.sleep(3)
        finally:
            outcome.seconds = time.monotonic() - started
            counts = self._ask("stop", {})
            outcome.sent, outcome.outcomes = counts["sent"], counts["outcomes"]

    def _ask(self, verb: str, content: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(through_proxy(f"client:9000/proxy/{verb}", content))
        return answer


def start_client(image: str) -> None:
    """Start the client's pod in a namespace of its own."""
    files = {_PROGRAM.name: _PROGRAM.read_text(encoding="utf-8"), _SMOKE.name: _SMOKE.read_text(encoding="utf-8")}
    metadata = {"name": "client", "namespace": TOOLS_NAMESPACE}
    command = ["python3", f"/programs/{_PROGRAM.name}"]
    probe = {"httpGet": {"path": "/counts", "port": 9000}, "periodSeconds": 1}
    apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": files},
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod_spec(image, command, "client", probe)},
    )
    kubectl("--namespace", TOOLS_NAMESPACE, "wait", "--for=condition=Ready", "pod/client", "--timeout=120s")


def address_of_the_service() -> str:
    """Return the Service's address and port; the tests need no DNS."""
    spec = get("service", "visionserve")["spec"]
    return f"{spec['clusterIP']}:{spec['ports'][0]['port']}"
