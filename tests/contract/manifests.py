"""Every variant of k8s/ rendered as a cluster gets it, and its contents."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.repository import ROOT

K8S = ROOT / "k8s"
Manifest = dict[str, Any]


class Pod(NamedTuple):
    """A pod's template: whose it is, its labels and its spec."""

    owner: str
    labels: dict[str, str]
    spec: dict[str, Any]

    @property
    def containers(self) -> list[dict[str, Any]]:
        """All of them, those that run first included."""
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def folders(kind: str) -> list[str]:
    """Return the folders below k8s/ that hold a Kustomization or a Component."""
    paths = (path.parent for path in K8S.rglob("kustomization.yaml") if f"\nkind: {kind}\n" in path.read_text())
    return sorted(folder.relative_to(K8S).as_posix() for folder in paths)


COMPONENTS = folders("Component")
VARIANTS = [*folders("Kustomization"), *COMPONENTS, "visionserve.yaml", "kserve/inferenceservice.yaml"]


@cache
def rendered(variant: str) -> tuple[Manifest, ...]:
    """Return the manifests of a folder, of a generated file, or of a component added to the CPU overlay."""
    path = K8S / variant
    if path.is_file():
        return tuple(yaml.safe_load_all(path.read_text()))
    if variant in COMPONENTS:
        return with_components(variant)
    return _kustomize(path)


@cache
def with_components(*components: str) -> tuple[Manifest, ...]:
    """Return the CPU overlay with components."""
    with tempfile.TemporaryDirectory() as copy:
        # kustomize takes components by relative paths only, so the overlay stands beside the others.
        shutil.copytree(K8S, copy, dirs_exist_ok=True)
        folder = Path(copy) / "overlays" / "composed"
        folder.mkdir()
        listed = [f"../../{component}" for component in components]
        (folder / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["../cpu"], "components": listed}))
        return _kustomize(folder)


def pods(manifests: tuple[Manifest, ...]) -> Iterator[Pod]:
    """Yield every pod that the manifests ask for."""
    for manifest in manifests:
        kind, spec = manifest["kind"], manifest.get("spec", {})
        owner = f"{kind}/{manifest['metadata']['name']}"
        if kind in ("Deployment", "Job"):
            yield Pod(owner, spec["template"]["metadata"]["labels"], spec["template"]["spec"])
        elif kind == "PyTorchJob":
            for replica in spec["pytorchReplicaSpecs"].values():
                yield Pod(owner, replica["template"]["metadata"]["labels"], replica["template"]["spec"])
        elif kind == "InferenceService":
            not_pod = {"labels", "minReplicas", "maxReplicas"}
            predictor = spec["predictor"]
            yield Pod(owner, predictor["labels"], {key: predictor[key] for key in predictor.keys() - not_pod})


def of_kind(manifests: tuple[Manifest, ...], kind: str) -> list[Manifest]:
    """Return the manifests of a kind."""
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def only(manifests: tuple[Manifest, ...], kind: str) -> Manifest:
    """Return the one manifest of a kind."""
    (manifest,) = of_kind(manifests, kind)
    return manifest


def _kustomize(folder: Path) -> tuple[Manifest, ...]:
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("kubectl is not installed: https://kubernetes.io/docs/tasks/tools/")
    done = subprocess.run([program, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))
