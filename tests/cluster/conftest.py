"""A cluster for the tests: the one that KUBECONFIG names, and only by `make test-cluster`."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import kube
from tests.cluster.kube import NAMESPACE, TOOLS_NAMESPACE, attempt, get, kubectl, rolled_out
from tests.cluster.overlays import HERE, OVERLAY, images_of
from tests.cluster.traffic import Traffic, address_of_the_service, start_client

CLUSTER = [pytest.mark.cluster, pytest.mark.timeout(1200)]
TOOLS = "visionserve-cluster-tools:test"
BROKEN = "visionserve:broken"
# Written on the namespaces that these tests made: others are not touched.
_OURS = "visionserve.io/tests"
# The removal of the service is the last of the tests that need it; those before it make the namespace again.
_ORDER = ("test_manifests", "test_gpu_nodes", "test_rollout", "test_faults", "test_autoscaling", "test_options")
# A kubelet says which images it has, some seconds after they were loaded.
_IMAGES_TIMEOUT_S = 90
_FAKE_NODE = "kwok.x-k8s.io/node"
_results: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of this folder into their order."""
    ours = [index for index, item in enumerate(items) if item.path.parent == HERE]
    ordered = sorted((items[index] for index in ours), key=lambda item: _ORDER.index(item.path.stem))
    for index, item in zip(ours, ordered, strict=True):
        items[index] = item


@pytest.fixture(scope="session", autouse=True)
def cluster() -> Iterator[None]:
    """Skip without a cluster; refuse one on which somebody else runs the service; leave nothing behind."""
    if os.environ.get("VISIONSERVE_TEST_CLUSTER") != "1" or not os.environ.get("KUBECONFIG"):
        pytest.skip("no cluster: `make test-cluster` runs these tests on the one that KUBECONFIG names")
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed: https://kubernetes.io/docs/tasks/tools/")
    answer = attempt("get", "--raw", "/readyz", "--request-timeout=20s")
    assert answer.returncode == 0, f"KUBECONFIG names a cluster that does not answer: {answer.stderr}"
    for namespace in (NAMESPACE, TOOLS_NAMESPACE):
        done = attempt("get", "namespace", namespace, "--output=jsonpath={.metadata.annotations}")
        if done.returncode == 0 and _OURS not in done.stdout:
            pytest.exit(
                f"The cluster has a namespace {namespace} that these tests did not make: use another cluster.", 2
            )
    remove_namespaces()
    kubectl("create", "namespace", TOOLS_NAMESPACE)
    claim(TOOLS_NAMESPACE)
    yield
    remove_namespaces()


def claim(namespace: str) -> None:
    """Write on a namespace that these tests made it."""
    kubectl("annotate", "namespace", namespace, f"{_OURS}=true", "--overwrite")


def remove_namespaces() -> None:
    """Delete what the tests made."""
    kubectl("delete", "namespace", NAMESPACE, TOOLS_NAMESPACE, "--ignore-not-found", "--timeout=180s")


@pytest.fixture(scope="session")
def node(cluster: None) -> str:
    """The name of a node with a kubelet that has the images; skips where there is none."""
    assert cluster is None
    needed = {*images_of(OVERLAY), TOOLS}
    deadline = time.monotonic() + _IMAGES_TIMEOUT_S
    while nodes := [one for one in get("nodes")["items"] if _FAKE_NODE not in one["metadata"].get("annotations", {})]:
        for one in nodes:
            if needed <= images_on(one):
                return str(one["metadata"]["name"])
        if time.monotonic() > deadline:
            pytest.skip("no node has the images: `make image cluster-images`, and load the archive into the cluster")
        time.sleep(2)
    pytest.skip("the cluster has no node: give it one, so that what needs pods is tested too")


def images_on(node: dict[str, Any]) -> set[str]:
    """Return the images of a node, without the registry that Docker leaves out."""
    listed = [name for image in node["status"].get("images", []) for name in image.get("names", [])]
    return {name.removeprefix("docker.io/").removeprefix("library/") for name in listed}


@pytest.fixture(scope="session")
def record() -> Callable[[str], None]:
    """Note a line that is printed at the end: what was done, and its numbers."""
    return _results.append


@pytest.fixture(scope="session")
def service(node: str, record: Callable[[str], None]) -> Iterator[Traffic]:
    """The service, rolled out from nothing, and its client."""
    started = time.monotonic()
    assert node
    kubectl("apply", "--kustomize", str(OVERLAY))
    claim(NAMESPACE)
    start_client(TOOLS)
    rolled_out()
    record(f"first roll-out of two pods: ready after {time.monotonic() - started:.0f} s")
    yield Traffic(address_of_the_service(), photograph())


@pytest.fixture
def steady(service: Traffic) -> Iterator[Traffic]:
    """The service with two ready pods, before and after the test."""
    yield service
    kubectl("apply", "--kustomize", str(OVERLAY))
    kubectl("--namespace", NAMESPACE, "scale", kube.DEPLOYMENT, "--replicas=2")
    rolled_out()
    kube.until(lambda: len(kube.ready_pods()) == len(kube.pods()) == 2, kube.overview)


def photograph() -> bytes:
    """An image of a dahlia, of scikit-learn's."""
    return Path(str(files("sklearn.datasets").joinpath("images/flower.jpg"))).read_bytes()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was recorded."""
    if _results:
        terminalreporter.section("on the cluster")
        for line in _results:
            terminalreporter.write_line(line)
