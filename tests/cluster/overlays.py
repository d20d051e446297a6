"""Kustomizations of the tests: the test overlay with components, settings and patches of one test."""

import json
import os
import re
import subprocess
from pathlib import Path

import yaml

from tests.cluster.kube import ROOT

HERE = ROOT / "tests" / "cluster"
OVERLAY = HERE / "overlay"
REQUESTS = HERE / "requests"
K8S = ROOT / "k8s"


def compose(
    folder: Path,
    *components: str,
    base: Path = OVERLAY,
    settings: dict[str, str] | None = None,
    patches: list[dict[str, object]] | None = None,
) -> Path:
    """Write a kustomization into a folder and return the folder.

    ``components`` are names below k8s/components, ``settings`` are the server's, ``patches`` are kustomize's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, object] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(base.resolve(), folder.resolve())],
        "components": [os.path.relpath(path, folder.resolve()) for path in _paths(components)],
        "patches": patches or [],
    }
    if settings:
        content["namespace"] = "visionserve"
        literals = [f"{name}={value}" for name, value in settings.items()]
        content["configMapGenerator"] = [{"name": "visionserve-server", "behavior": "merge", "literals": literals}]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder


def images_of(folder: Path) -> list[str]:
    """Return the images that a kustomization names."""
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return sorted(set(re.findall(r"image: (\S+)", done.stdout)))


def patch(kind: str, content: dict[str, object]) -> dict[str, object]:
    """Return a patch of every resource of a kind."""
    return {"target": {"kind": kind}, "patch": json.dumps({"apiVersion": "any", "kind": kind, **content})}


def _paths(components: tuple[str, ...]) -> list[Path]:
    return [REQUESTS if name == "requests" else K8S / "components" / name for name in components]
