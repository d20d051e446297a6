"""Options of a running service under a constant load: keys, a canary, and the end of it all."""

import re
from collections.abc import Callable
from pathlib import Path

from tests.cluster.conftest import CLUSTER
from tests.cluster.kube import (
    NAMESPACE,
    SELECTOR,
    attempt,
    events,
    get,
    in_namespace,
    kubectl,
    names,
    overview,
    pods,
    ready_pods,
    rolled_out,
    through_proxy,
    until,
)
from tests.cluster.overlays import K8S, compose
from tests.cluster.traffic import Traffic

pytestmark = CLUSTER
Record = Callable[[str], None]
KEY = "0123456789abcdef0123456789abcdef"
_STABLE, _CANARY = (f"{SELECTOR},visionserve.io/track={track}" for track in ("stable", "canary"))
_REQUESTS = re.compile(r'^gateway_requests_total\{route="predictions",[^}]*\} (\S+)$', re.MULTILINE)


def test_keys_close_the_gateway_only_when_their_secret_is_there(
    steady: Traffic, record: Record, tmp_path: Path
) -> None:
    def waits_for_its_secret() -> bool:
        return any('secret "visionserve-keys" not found' in events(name) for name in names(pods()) - before)

    before = names(pods())
    with steady.load(X_API_Key=KEY) as outcome:
        kubectl("apply", "--kustomize", str(compose(tmp_path, "api-keys")))
        until(waits_for_its_secret, overview)
        assert names(ready_pods()) == before
        in_namespace("create", "secret", "generic", "visionserve-keys", f"--from-literal=keys=tester:{KEY}")
        rolled_out()
        until(lambda: not names(pods()) & before, overview)
    record(f"API keys, their Secret missing at first: {outcome}")
    assert not outcome.lost
    assert steady.send()["status"] == 401
    done = steady.smoke(KEY)
    assert done["code"] == 0, done["output"]


def test_a_canary_gets_the_share_of_its_pods_and_its_removal_loses_nothing(
    steady: Traffic, record: Record, tmp_path: Path
) -> None:
    stable = names(pods(_STABLE))
    canary = compose(tmp_path, "requests", base=K8S / "canary" / "cpu")
    with steady.load() as outcome:
        kubectl("apply", "--kustomize", str(canary))
        rolled_out("deployment/visionserve-canary")
        until(lambda: len(ready_pods(_CANARY)) == 1, overview)
        before = answered(_STABLE), answered(_CANARY)
        until(lambda: answered(_STABLE) + answered(_CANARY) - sum(before) > 200, overview)
        of_stable, of_canary = answered(_STABLE) - before[0], answered(_CANARY) - before[1]
        kubectl("delete", "--kustomize", str(canary), "--timeout=180s")
        until(lambda: not get("pods", f"--selector={_CANARY}")["items"], overview)
    share = of_canary / (of_canary + of_stable)
    record(f"one canary beside two pods got {share:.0%} of {of_canary + of_stable:.0f}; and its removal: {outcome}")
    # A third of 200 is within 0.23 and 0.43 in 998 of 1000 cases.
    assert 0.23 < share < 0.43
    assert not outcome.lost
    assert names(pods()) == stable


def test_deleting_the_service_leaves_nothing_in_the_cluster(service: Traffic, record: Record) -> None:
    """Literally as the documents say; the names are those of the CPU overlay."""
    assert service
    kubectl("delete", "--filename", "k8s", "--timeout=180s")
    assert attempt("get", "namespace", NAMESPACE).returncode != 0
    left = kubectl("get", "all", "--all-namespaces", f"--selector={SELECTOR}", "--output=name")
    assert left == ""
    record("kubectl delete -f k8s: nothing is left")


def answered(selector: str) -> float:
    """Return how many requests the gateways of ready pods have answered, the probes' not among them."""
    texts = [through_proxy(f"{name}:8083/proxy/metrics", namespace=NAMESPACE) for name in names(ready_pods(selector))]
    return sum(float(number) for text in texts for number in _REQUESTS.findall(text))
