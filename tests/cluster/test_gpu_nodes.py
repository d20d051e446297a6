"""The GPU overlay on several nodes that pretend to have GPUs: spreading, taints, and the GPU that a roll-out needs.

kwok makes nodes without a kubelet: the scheduler is real, the pods are called ready and run nothing. Version 0.6.1: an
API server on etcd 3.4 refuses the watches of later ones, which then notice changes late.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.cluster.conftest import CLUSTER, claim
from tests.cluster.kube import (
    DEPLOYMENT,
    NAMESPACE,
    Resource,
    apply,
    events,
    get,
    in_namespace,
    kubectl,
    names,
    overview,
    pods,
    ready_pods,
    rolled_out,
    until,
)
from tests.cluster.overlays import K8S
from tests.contract.manifests import only, rendered

needs_kwok = pytest.mark.skipif(
    shutil.which("kwok") is None, reason="kwok is missing: go install sigs.k8s.io/kwok/cmd/kwok@v0.6.1"
)
pytestmark = [*CLUSTER, needs_kwok]
Record = Callable[[str], None]
_FAKE = {"kwok.x-k8s.io/node": "fake"}
_GPU_TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
_LABEL = "nvidia.com/gpu.present"
NODES = ("gpu-a1", "gpu-a2", "gpu-b1")


@pytest.fixture(scope="module", autouse=True)
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Three nodes with one GPU each in two zones, and one with as many cores and no GPU."""
    log = tmp_path_factory.mktemp("kwok") / "kwok.log"
    ours = ["--manage-all-nodes=false", "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake"]
    command = ["kwok", f"--kubeconfig={os.environ['KUBECONFIG']}", *ours]
    with log.open("wb") as stream, subprocess.Popen(command, stdout=stream, stderr=stream) as process:
        try:
            apply(*(node(name, zone=name[-2], gpus=1) for name in NODES), node("plain", zone="a", gpus=0))
            until(lambda: all(ready(get("node", name)) for name in (*NODES, "plain")), log.read_text, 60)
            kubectl("apply", "--filename", str(K8S))
            claim(NAMESPACE)
            rolled_out()
            yield
        finally:
            kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=180s")
            kubectl("delete", "node", *NODES, "plain", "--ignore-not-found")
            process.terminate()


def test_pods_are_on_nodes_with_a_gpu_in_different_zones() -> None:
    places = {pod["spec"]["nodeName"] for pod in pods()}
    assert len(places) == 2 and places <= set(NODES)
    assert {name[-2] for name in places} == {"a", "b"}


def test_a_rollout_uses_one_gpu_more() -> None:
    before = names(pods())
    in_namespace("rollout", "restart", DEPLOYMENT)
    rolled_out()
    until(lambda: not names(pods()) & before, overview)
    assert len(ready_pods()) == 2


def test_without_another_gpu_a_rollout_waits_and_its_event_says_so(record: Record) -> None:
    in_namespace("scale", DEPLOYMENT, "--replicas=3")
    rolled_out()
    before = names(pods())
    in_namespace("rollout", "restart", DEPLOYMENT)
    reason = until(lambda: unschedulable(names(pods()) - before), overview, 60)
    record(f"a roll-out without another GPU: {reason}")
    assert "3 Insufficient nvidia.com/gpu" in reason
    assert "Insufficient cpu" not in reason and "Insufficient memory" not in reason
    assert names(ready_pods()) == before


def test_then_the_documents_patch_rolls_with_less_capacity() -> None:
    """Goes on from the roll-out that waits."""
    before = names(ready_pods())
    patch = '{"spec": {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}}}'
    in_namespace("patch", DEPLOYMENT, f"--patch={patch}")
    rolled_out()
    until(lambda: not names(pods()) & before and len(ready_pods()) == 3, overview)


def test_a_pod_that_tolerates_no_taint_does_not_start_on_a_node_with_a_gpu(record: Record) -> None:
    """The taint is in force: otherwise the tests above would say nothing of the toleration."""
    deployment = only(rendered("visionserve.yaml"), "Deployment")
    template = deployment["spec"]["template"]["spec"]
    spec = {key: value for key, value in template.items() if key not in ("tolerations", "serviceAccountName")}
    metadata = {"name": "intolerant", "namespace": NAMESPACE}
    apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    reason = until(lambda: unschedulable({"intolerant"}), overview, 60)
    record(f"a pod without the toleration: {reason}")
    assert "untolerated taint" in reason
    in_namespace("delete", "pod", "intolerant", "--grace-period=0", "--force")


def node(name: str, zone: str, gpus: int) -> Resource:
    """Return a node of kwok's."""
    labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone}
    capacity = {"cpu": "32", "memory": "128Gi", "ephemeral-storage": "100Gi", "pods": "20"}
    spec: Resource = {"taints": []}
    if gpus:
        labels[_LABEL] = "true"
        capacity["nvidia.com/gpu"] = str(gpus)
        spec["taints"] = [_GPU_TAINT]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": _FAKE},
        "spec": spec,
        "status": {"capacity": capacity, "allocatable": capacity},
    }


def ready(one: Resource) -> bool:
    """Return whether a node is ready."""
    conditions = one["status"].get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def unschedulable(pod_names: set[str]) -> str:
    """Return why one of these pods has no node; empty while nothing was said."""
    texts = [events(name) for name in pod_names]
    return next((line for text in texts for line in text.splitlines() if "FailedScheduling" in line), "")
