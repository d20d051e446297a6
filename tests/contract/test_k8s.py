"""Every variant of k8s/ is valid on three versions of Kubernetes, keeps to least privilege, and is up to date."""

import shutil
import subprocess
import sys
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tests.contract.manifests import K8S, VARIANTS, Manifest, Pod, of_kind, pods, rendered
from tests.repository import ROOT

# The oldest that still gets fixes somewhere, one between, and the newest that there are schemas for.
VERSIONS = ("1.31", "1.34", "1.37")
CRDS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "tests" / "contract" / "crds").glob("*.yaml")}
# What checks ScaledObject's own part of a HorizontalPodAutoscaler.
_AUTOSCALER = {"scaleTargetRef": {"kind": "Deployment", "name": "x"}, "maxReplicas": 1}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_resource_fits_its_schema(variant: str, version: str) -> None:
    for manifest in rendered(variant):
        validate(manifest, version)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "replicas"), "two"),
        (("spec", "template", "spec", "containers", 0, "livenesProbe"), {}),
        (("spec", "strategy", "rollingUpdate", "maxUnavailable"), {}),
    ],
    ids=["wrong type", "misspelled field", "wrong structure"],
)
def test_the_schemas_refuse_what_is_wrong(path: tuple[str | int, ...], value: Any) -> None:
    text = (K8S / "base" / "deployment.yaml").read_text()
    deployment = yaml.safe_load(text)
    parent = deployment
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = value
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(deployment, VERSIONS[-1])


@pytest.mark.parametrize("kind", sorted(CRDS))
def test_the_schemas_of_custom_resources_refuse_unknown_fields(kind: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"spec": {"unknown": 1}}, CRDS[kind])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_container_has_the_least_privileges(variant: str) -> None:
    for pod in pods(rendered(variant)):
        security = pod.spec["securityContext"]
        assert security["runAsNonRoot"] is True and security["runAsUser"] == 10001, pod.owner
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, pod.owner
        assert pod.spec["automountServiceAccountToken"] is False, pod.owner
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.spec.keys(), pod.owner
        for container in pod.containers:
            least = {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["securityContext"] == least, (pod.owner, container["name"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_container_says_what_it_needs_and_may_take(variant: str) -> None:
    for pod in pods(rendered(variant)):
        for container in pod.containers:
            for bound in ("requests", "limits"):
                needed = {"cpu", "memory", "ephemeral-storage"}
                assert needed <= container["resources"][bound].keys(), (pod.owner, container["name"], bound)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_empty_folder_has_a_limit(variant: str) -> None:
    for pod in pods(rendered(variant)):
        for volume in pod.spec["volumes"]:
            assert "hostPath" not in volume
            assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"], (pod.owner, volume["name"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_container_can_write_to_tmp(variant: str) -> None:
    for pod in pods(rendered(variant)):
        for container in pod.containers:
            assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}, (pod.owner, container["name"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_list_of_rules_is_empty(variant: str) -> None:
    """The API server drops an empty one, after which every apply says "configured"; policyTypes forbids as much."""
    for manifest in of_kind(rendered(variant), "NetworkPolicy"):
        assert manifest["spec"].get("ingress") != [] != manifest["spec"].get("egress"), manifest["metadata"]["name"]


def test_the_generated_manifests_are_up_to_date() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed: https://kubernetes.io/docs/tasks/tools/")
    done = subprocess.run(
        [sys.executable, K8S.parent / "scripts" / "render_manifests.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_plain_apply_reads_manifests_only() -> None:
    """`kubectl apply -f k8s` takes every .yaml, .yml and .json directly in the folder, and fails on a kustomization."""
    read = sorted(path.name for path in K8S.iterdir() if path.suffix in (".yaml", ".yml", ".json"))
    assert read == ["visionserve.yaml"]
    assert rendered("visionserve.yaml")[0]["kind"] == "Namespace"


def validate(manifest: Manifest, version: str) -> None:
    """Validate a resource; what only a cluster's operators know is checked by our own schema and, inside, as pods."""
    crd = CRDS.get(manifest["kind"].lower())
    if crd is None:
        kubernetes_validate.validate(manifest, version, strict=True)
        return
    jsonschema.validate(manifest, crd)
    for pod in pods((manifest,)):
        kubernetes_validate.validate(_as_pod(pod), version, strict=True)
    if manifest["kind"] == "ScaledObject":
        behaviour = manifest["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        spec = {**_AUTOSCALER, "behavior": behaviour}
        autoscaler = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "spec": spec}
        kubernetes_validate.validate(autoscaler, version, strict=True)


def _as_pod(pod: Pod) -> Manifest:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "labels": pod.labels}, "spec": pod.spec}
