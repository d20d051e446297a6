"""`python -m monitoring dashboard`: write the Grafana dashboard from content.py.

The committed file is this command's output; a test writes it again and compares.
"""

import argparse
import json
import string
from typing import Any

from monitoring.dashboard.content import ROWS
from monitoring.dashboard.model import Panel, Row

COLUMNS = 24
_HEIGHTS = {"timeseries": 8, "stat": 8, "table": 7}
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
Json = dict[str, Any]


def run(args: argparse.Namespace) -> int:
    """Write the dashboard to ``args.out``."""
    args.out.write_text(text(), encoding="utf-8")
    print(args.out)
    return 0


def text() -> str:
    """Return the dashboard as Grafana's JSON, ending in a line feed."""
    return json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n"


def dashboard() -> Json:
    """Return the dashboard as Grafana's JSON object."""
    return {
        "uid": "visionserve",
        "title": "visionserve",
        "description": "Health of the service and of its model. Written by `python -m monitoring dashboard`.",
        "tags": ["visionserve"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": [_alerts()]},
        "templating": {"list": _variables()},
        "panels": _laid_out(ROWS),
    }


def _alerts() -> Json:
    return {
        "name": "Alerts",
        "datasource": _DATASOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertname=~"Visionserve.*",alertstate="firing"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{severity}}",
    }


def _variables() -> list[Json]:
    datasource = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    queries = {
        "namespace": "label_values(visionserve_ready, namespace)",
        "job": 'label_values(visionserve_ready{namespace=~"$namespace"}, job)',
        "model": 'label_values(visionserve_model_info{namespace=~"$namespace",job=~"$job"}, model)',
    }
    return [datasource, *(_variable(name, query) for name, query in queries.items())]


def _variable(name: str, query: str) -> Json:
    return {
        "name": name,
        "label": name,
        "type": "query",
        "datasource": _DATASOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,  # whenever the time range changes
        "multi": True,
        "includeAll": True,
        # Matches series without the label too: outside Kubernetes nothing has a namespace.
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "sort": 1,
    }


def _laid_out(rows: tuple[Row, ...]) -> list[Json]:
    """Place the panels from left to right and top to bottom, a heading over each row."""
    panels: list[Json] = []
    top = 0
    for row in rows:
        panels.append(_heading(row.title, len(panels) + 1, top))
        top += 1
        left = height = 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                left, top = 0, top + height
            height = _HEIGHTS[panel.kind]
            position = {"x": left, "y": top, "w": panel.width, "h": height}
            panels.append(_panel(panel, len(panels) + 1, position))
            left += panel.width
        top += height
    return panels


def _heading(title: str, number: int, top: int) -> Json:
    position = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": position, "panels": []}


def _panel(panel: Panel, number: int, position: dict[str, int]) -> Json:
    content: Json = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "gridPos": position,
        "targets": _targets(panel),
        "fieldConfig": {"defaults": _field(panel), "overrides": []},
        "options": _options(panel),
    }
    if panel.kind == "table":
        hidden = {"Time": True, "Value": True}
        content["transformations"] = [{"id": "organize", "options": {"excludeByName": hidden}}]
    return content


def _targets(panel: Panel) -> list[Json]:
    # Grafana names queries by letters.
    targets: list[Json] = []
    for letter, query in zip(string.ascii_uppercase, panel.queries, strict=False):
        target: Json = {"refId": letter, "datasource": _DATASOURCE, "expr": query.expr, "legendFormat": query.legend}
        # A table shows what is, not what was.
        targets.append(target | ({"format": "table", "instant": True} if panel.kind == "table" else {}))
    return targets


def _field(panel: Panel) -> Json:
    steps = [{"color": colour, "value": value} for value, colour in panel.steps]
    field: Json = {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.maximum is not None:
        field["max"] = panel.maximum
    if panel.kind == "stat":
        # A share that is promised to three nines needs its digits, and its scale does not start at 0.
        del field["min"]
        field["decimals"] = 3
    if panel.kind == "timeseries":
        field["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 25 if panel.stacked else 5,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "dashed" if len(panel.steps) > 1 else "off"},
        }
    return field


def _options(panel: Panel) -> Json:
    if panel.kind == "timeseries":
        legend = {"displayMode": "list", "placement": "bottom", "showLegend": True}
        return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    if panel.kind == "stat":
        reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {"reduceOptions": reduce, "colorMode": "value", "graphMode": "area", "textMode": "auto"}
    return {"showHeader": True, "cellHeight": "sm"}
