"""Every PromQL query of the repository: of the rules, the dashboard's panels and the autoscalers' manifests."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
RULES = ROOT / "monitoring" / "rules"
DASHBOARD = ROOT / "monitoring" / "grafana" / "dashboards" / "visionserve.json"
# What Grafana puts in their place when everything is selected.
VARIABLES = {"$__rate_interval": "1m", "$namespace": ".*", "$job": ".*", "$model": ".*"}


def rules(path: Path) -> list[dict[str, Any]]:
    """The rules of a file, recording and alerting."""
    return [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


def all_rules() -> list[dict[str, Any]]:
    return [rule for path in sorted(RULES.glob("*.yml")) for rule in rules(path)]


def alerts() -> dict[str, list[dict[str, Any]]]:
    """The alerting rules by name; a burn rate has one rule per window."""
    found: dict[str, list[dict[str, Any]]] = {}
    for rule in all_rules():
        if "alert" in rule:
            found.setdefault(rule["alert"], []).append(rule)
    return found


def panels() -> dict[str, list[str]]:
    """The queries of each panel by its title, with the dashboard's variables put in."""
    content = json.loads(DASHBOARD.read_text())
    shown = [panel for panel in content["panels"] if panel["type"] != "row"]
    return {panel["title"]: [_settled(target["expr"]) for target in panel["targets"]] for panel in shown}


def _settled(expr: str) -> str:
    for variable, value in VARIABLES.items():
        expr = expr.replace(variable, value)
    return expr


def autoscalers() -> list[str]:
    """The queries that manifests ask Prometheus: KEDA's triggers and the metrics adapter's, for one pod."""
    return sorted({query for path in sorted((ROOT / "k8s").rglob("*.yaml")) for query in _asked(path)})


def _asked(path: Path) -> Iterator[str]:
    for document in yaml.safe_load_all(path.read_text()):
        yield from _found(document)


def _found(node: Any) -> Iterator[str]:
    """KEDA writes a query beside `serverAddress`, the adapter one with places for labels as `metricsQuery`."""
    if isinstance(node, dict):
        if "serverAddress" in node:
            yield node["query"]
        if "metricsQuery" in node:
            labels = 'namespace="visionserve",pod="visionserve-0"'
            yield node["metricsQuery"].replace("<<.LabelMatchers>>", labels).replace("<<.GroupBy>>", "pod")
    if isinstance(node, dict | list):
        for below in node.values() if isinstance(node, dict) else node:
            yield from _found(below)
