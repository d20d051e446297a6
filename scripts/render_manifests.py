"""Render the generated manifests (`make manifests`); `--check` lists those that are out of date.

base + overlays/gpu        -> visionserve.yaml                 read by `kubectl apply -f k8s`
the same pods              -> kserve/inferenceservice.yaml     as an InferenceService
monitoring/rules/*.yml     -> components/monitoring/rules.yaml as a PrometheusRule
the flower recipe          -> training/recipe.yaml             kustomize reads nothing outside its folder
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent.parent / "k8s"
RULES = HERE.parent / "monitoring" / "rules"
RECIPE = HERE.parent / "training" / "recipes" / "flowers102.yaml"
_KUBECTL = shutil.which("kubectl") or "kubectl"
# An InferenceService replaces these.
_REPLACED = ("Deployment", "Service", "PodDisruptionBudget")

Manifest = dict[str, Any]


class _Dumper(yaml.SafeDumper):
    """YAML for readers: no anchors, multi-line expressions as literal blocks."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        """Write every value out."""
        return True


def _lines(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _lines)


def main() -> int:
    """Write or check; return a process exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is out of date")
    check = parser.parse_args().check
    stale = [name for name, text in generated().items() if not _same(HERE / name, text)]
    for name in stale:
        print(f"k8s/{name} {'is out of date: run `make manifests`' if check else 'written'}")
        if not check:
            (HERE / name).write_text(generated()[name], encoding="utf-8")
    return 1 if check and stale else 0


def generated() -> dict[str, str]:
    """Return the text of every generated file by its path below k8s/."""
    # First, because the rendering below reads it.
    rules = {"components/monitoring/rules.yaml": _text([prometheus_rule()], "monitoring/rules")}
    served = rendered(HERE / "overlays" / "gpu")
    return rules | {
        "visionserve.yaml": _text(served, "k8s/base and k8s/overlays/gpu"),
        "kserve/inferenceservice.yaml": _text(inference_service(served), "k8s/base and k8s/overlays/gpu"),
        "training/recipe.yaml": _header("training/recipes") + RECIPE.read_text(encoding="utf-8"),
    }


def rendered(folder: Path) -> list[Manifest]:
    """Return the manifests of a kustomization."""
    done = subprocess.run([_KUBECTL, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{folder} cannot be rendered: {done.stderr.strip()}")
    return list(yaml.safe_load_all(done.stdout))


def prometheus_rule() -> Manifest:
    """Return all rules as the one resource of the Prometheus operator."""
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(RULES.glob("*.yml"))]
    labels = {"app.kubernetes.io/name": "visionserve"}
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "visionserve", "namespace": "visionserve", "labels": labels},
        "spec": {"groups": [group for file in files for group in file["groups"]]},
    }


def inference_service(manifests: list[Manifest]) -> list[Manifest]:
    """Return the manifests with the Deployment's pods in an InferenceService.

    KServe sends requests to the first port of the first container, which must be named kserve-container.
    """
    deployment = next(one for one in manifests if one["kind"] == "Deployment")
    template = deployment["spec"]["template"]
    pod = dict(template["spec"])
    gateway = next(one for one in pod["containers"] if one["name"] == "gateway") | {"name": "kserve-container"}
    pod["containers"] = [gateway, *(one for one in pod["containers"] if one["name"] != "gateway")]
    labels = {"app.kubernetes.io/name": "visionserve"}
    service = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": "visionserve",
            "namespace": "visionserve",
            "labels": labels,
            # A Deployment, a Service and an autoscaler, without Knative.
            "annotations": {"serving.kserve.io/deploymentMode": "Standard"},
        },
        "spec": {"predictor": {"minReplicas": 2, "maxReplicas": 8, "labels": labels, **pod}},
    }
    return [*(one for one in manifests if one["kind"] not in _REPLACED), service]


def _text(manifests: list[Manifest], source: str) -> str:
    body = yaml.dump_all(manifests, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    return _header(source) + body


def _header(source: str) -> str:
    return f"# Generated by `make manifests` from {source}: edit that.\n"


def _same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
