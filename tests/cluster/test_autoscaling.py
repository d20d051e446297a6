"""The Horizontal Pod Autoscaler scales the service by the product's own metric, up under load and down after it.

Prometheus is a real one beside the tests: it scrapes the pods through `kubectl proxy`, with the labels that the
PodMonitor's job has. The adapter is a stand-in (metrics_api.py) that answers what Prometheus said to the query of
prometheus-adapter-values.yaml.
"""

import contextlib
import json
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
import yaml

from tests.cluster.conftest import CLUSTER, TOOLS
from tests.cluster.kube import (
    DEPLOYMENT,
    NAMESPACE,
    TOOLS_NAMESPACE,
    apply,
    attempt,
    get,
    kubectl,
    names,
    overview,
    pods,
    ready_pods,
    through_proxy,
    until,
)
from tests.cluster.overlays import K8S, compose, patch
from tests.cluster.restricted import pod_spec
from tests.cluster.traffic import Traffic
from tests.contract.manifests import only, rendered
from tests.e2e.conftest import free_ports
from tests.e2e.monitoring.prometheus import Prometheus

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is missing: install Debian's prometheus"
)
pytestmark = [*CLUSTER, needs_prometheus]
Record = Callable[[str], None]
METRIC = "visionserve_requests_in_flight"
METRICS_PATH = f"/apis/custom.metrics.k8s.io/v1beta2/namespaces/{NAMESPACE}/pods/%2A/{METRIC}"
RULE = yaml.safe_load((K8S / "components" / "autoscaling-hpa" / "prometheus-adapter-values.yaml").read_text())["rules"][
    "custom"
][0]
# Twice what two pods should have; the client itself needs part of each second.
CLIENTS = 16
# Five minutes are too long for a test.
DOWN_AFTER_S = 20
PUSH_S = 3
_PROGRAM = Path(__file__).with_name("metrics_api.py")
_FILES = {path.name: path.read_text(encoding="utf-8") for path in (_PROGRAM, _PROGRAM.with_name("client.py"))}


@pytest.fixture(scope="module")
def prometheus(service: Traffic, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that reaches the pods through the API server."""
    assert service
    folder = tmp_path_factory.mktemp("prometheus")
    proxy_port, port = free_ports(2)
    targets = folder / "targets.json"
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration(targets)))
    options = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    with (
        listing(targets, f"127.0.0.1:{proxy_port}"),
        running(["kubectl", "proxy", f"--port={proxy_port}"], f"http://127.0.0.1:{proxy_port}/readyz"),
        running(["prometheus", *options, f"--web.listen-address=127.0.0.1:{port}"], f"http://127.0.0.1:{port}/-/ready"),
    ):
        yield Prometheus(f"http://127.0.0.1:{port}")


@pytest.fixture(scope="module")
def metrics_api(service: Traffic) -> Iterator[None]:
    """The stand-in of the custom metrics API, registered with the API server."""
    assert service
    register_metrics_api()
    yield
    kubectl("delete", "apiservice", "v1beta2.custom.metrics.k8s.io", "--ignore-not-found")


def test_the_query_of_the_scaled_object_has_a_value_under_load(
    service: Traffic, prometheus: Prometheus, record: Record
) -> None:
    (trigger,) = only(rendered("components/autoscaling-keda"), "ScaledObject")["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    with service.load(clients=CLIENTS) as outcome:
        until(lambda: value(prometheus, query) > float(trigger["metadata"]["threshold"]), lambda: query, 180)
        in_flight = value(prometheus, query)
    record(f"the ScaledObject's query at {CLIENTS} clients: {in_flight:.1f} in flight; {outcome}")
    assert in_flight < CLIENTS + 1


def test_the_autoscaler_adds_pods_under_load_and_removes_them_after_it(
    steady: Traffic, prometheus: Prometheus, metrics_api: None, record: Record, tmp_path: Path
) -> None:
    assert metrics_api is None
    sooner = {
        "metadata": {"name": "any"},
        "spec": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": DOWN_AFTER_S}}},
    }
    few = {"metadata": {"name": "any"}, "spec": {"maxReplicas": 3}}
    patches = [patch("HorizontalPodAutoscaler", content) for content in (sooner, few)]
    before = names(pods())
    leave_the_number_of_pods_to_the_autoscaler()
    kubectl("apply", "--kustomize", str(compose(tmp_path, "autoscaling-hpa", patches=patches)))
    assert replicas() == len(before)
    try:
        with pushing(prometheus):
            until(lambda: attempt("get", "--raw", METRICS_PATH).returncode == 0, autoscaler, 60)
            started = time.monotonic()
            with steady.load(clients=CLIENTS) as outcome:
                until(lambda: replicas() == 3, autoscaler, 240)
                asked_s = time.monotonic() - started
                until(lambda: len(ready_pods()) == 3, overview)
                ready_s = time.monotonic() - started
            ended = time.monotonic()
            until(lambda: replicas() == 2 and len(pods()) == 2, autoscaler, 300)
            record(
                f"autoscaler, {CLIENTS} clients: 3 pods asked for after {asked_s:.0f} s, ready after {ready_s:.0f} s, "
                f"2 again {time.monotonic() - ended:.0f} s after the load: {outcome}"
            )
    finally:
        kubectl("--namespace", NAMESPACE, "delete", "horizontalpodautoscaler", "visionserve")
    assert not outcome.lost


def configuration(targets: Path) -> dict[str, object]:
    """Return Prometheus's configuration; Debian's build finds no pods by itself, so a file names them."""
    job = {
        "job_name": "visionserve",
        "scrape_interval": "5s",
        "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "3s"}],
    }
    return {"scrape_configs": [job]}


@contextlib.contextmanager
def listing(targets: Path, api: str) -> Iterator[None]:
    """Keep the list of the pods, with the labels namespace and pod, as the operator sets them."""
    over = threading.Event()

    def write() -> None:
        groups = []
        for name in sorted(names(ready_pods())):
            path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}:8083/proxy/metrics"
            labels = {"namespace": NAMESPACE, "pod": name, "__metrics_path__": path}
            groups.append({"targets": [api], "labels": labels})
        targets.with_suffix(".new").write_text(json.dumps(groups), encoding="utf-8")
        targets.with_suffix(".new").replace(targets)

    def keep() -> None:
        while not over.wait(PUSH_S):
            write()

    write()
    thread = threading.Thread(target=keep)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def register_metrics_api() -> None:
    """Start the stand-in and make it the custom metrics API."""
    metadata = {"name": "metrics", "namespace": TOOLS_NAMESPACE, "labels": {"app": "metrics"}}
    command = ["python3", f"/programs/{_PROGRAM.name}", NAMESPACE, METRIC]
    probe = {"httpGet": {"path": "/ready", "port": 9000}, "periodSeconds": 1}
    spec = pod_spec(TOOLS, command, "metrics", probe)
    name = {"name": "v1beta2.custom.metrics.k8s.io"}
    backend = {"name": "metrics", "namespace": TOOLS_NAMESPACE, "port": 443}
    about = {
        "group": "custom.metrics.k8s.io",
        "version": "v1beta2",
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
    }
    api = {"service": backend, "insecureSkipTLSVerify": True, **about}
    ports = {"selector": {"app": "metrics"}, "ports": [{"port": 443, "targetPort": 6443}]}
    apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": _FILES},
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": ports},
        {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": name, "spec": api},
    )
    kubectl("--namespace", TOOLS_NAMESPACE, "wait", "--for=condition=Ready", "pod/metrics", "--timeout=120s")
    kubectl("wait", "--for=condition=Available", f"apiservice/{name['name']}", "--timeout=120s")


@contextlib.contextmanager
def pushing(prometheus: Prometheus) -> Iterator[None]:
    """Give the stand-in what Prometheus says, of the pods that there are, as the adapter asks."""
    over = threading.Event()
    matchers = f'namespace="{NAMESPACE}"'
    query = RULE["metricsQuery"].replace("<<.LabelMatchers>>", matchers).replace("<<.GroupBy>>", "pod")
    assert RULE["name"]["as"] == METRIC and not re.search("<<", query)

    def push() -> None:
        while not over.wait(PUSH_S):
            present = names(pods())
            values = {one["metric"]["pod"]: float(one["value"][1]) for one in prometheus.query(query)}
            through_proxy("metrics:9000/proxy/values", {pod: values[pod] for pod in values.keys() & present})

    thread = threading.Thread(target=push)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def running(command: list[str], ready: str) -> Iterator[None]:
    """Run a program until it is no longer needed."""

    def answers() -> bool:
        try:
            return requests.get(ready, timeout=5).ok
        except requests.RequestException:
            return False

    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            until(answers, lambda: f"{command[0]} does not answer at {ready}", 60)
            yield
        finally:
            process.terminate()


def value(prometheus: Prometheus, query: str) -> float:
    """Return the value of a query with one sample; 0 while there is none."""
    samples = prometheus.query(query)
    return float(samples[0]["value"][1]) if samples else 0.0


def leave_the_number_of_pods_to_the_autoscaler() -> None:
    """As the documents say: an apply without the number would otherwise set it to its default of 1."""
    deployment = ("--namespace", NAMESPACE, "--output=yaml", DEPLOYMENT)
    applied = kubectl("apply", "view-last-applied", *deployment)
    kept = [line for line in applied.splitlines(keepends=True) if not line.startswith("  replicas:")]
    kubectl("apply", "set-last-applied", "--filename=-", data="".join(kept))


def replicas() -> int:
    """Return how many pods the autoscaler wants."""
    number: int = get("deployment", "visionserve")["spec"].get("replicas", 0)
    return number


def autoscaler() -> str:
    """Return what the autoscaler says."""
    return kubectl("--namespace", NAMESPACE, "describe", "horizontalpodautoscaler", "visionserve")
