import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from handlers import image_handler
from launcher import workers
from monitoring import reference
from tests import queries
from tests.contract.conftest import BUNDLE
from tests.repository import ROOT

RUNBOOK = ROOT / "docs" / "runbook.md"
TESTS = sorted((queries.RULES / "tests").glob("*.yml"))
ALERTS = queries.alerts()
# The SRE workbook, chapter 5, table 5-8: long window, short window, burn rate.
BURN_RATES = {"1h": ("5m", 14.4), "6h": ("30m", 6), "1d": ("2h", 3), "3d": ("6h", 1)}
BUDGETS = {"availability": "0.001", "latency": "0.01"}
# Prometheus' own.
BUILT_IN = {"up", "ALERTS"}

needs_prometheus = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is missing: install Debian's prometheus"
)
needs_alertmanager = pytest.mark.skipif(
    shutil.which("amtool") is None, reason="amtool is missing: install Debian's prometheus-alertmanager"
)


def ran(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@needs_prometheus
def test_prometheus_accepts_the_rules_and_the_configuration() -> None:
    done = ran("promtool", "check", "config", "monitoring/prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(list(queries.RULES.glob('*.yml')))} rule files found" in done.stdout


@needs_prometheus
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_the_rules_pass_their_own_tests(path: Path) -> None:
    done = ran("promtool", "test", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


@needs_alertmanager
def test_alertmanager_accepts_its_configuration() -> None:
    done = ran("amtool", "check-config", "monitoring/alertmanager.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_each_alert_is_shown_to_fire_and_to_stay_quiet(name: str) -> None:
    cases = [
        case for path in TESTS for test in yaml.safe_load(path.read_text())["tests"] for case in _cases(test, name)
    ]
    assert any(case["exp_alerts"] for case in cases)
    assert any(not case["exp_alerts"] for case in cases)


def _cases(test: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [case for case in test.get("alert_rule_test", []) if case["alertname"] == name]


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_each_alert_says_how_urgent_it_is_what_happens_and_where_to_read_on(name: str) -> None:
    for rule in ALERTS[name]:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        notes = rule["annotations"]
        assert set(notes) == {"summary", "description", "runbook_url"}
        assert notes["description"].endswith(".")
        assert re.search(r"\d|\$value", notes["description"]), "a description has numbers"
        assert notes["runbook_url"] == f"docs/runbook.md#{name.lower()}"


def test_the_runbook_has_one_entry_for_each_alert_and_no_other() -> None:
    assert sorted(re.findall(r"(?m)^### (\w+)$", RUNBOOK.read_text())) == sorted(ALERTS)


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_the_runbook_states_the_urgency_and_what_to_do(name: str) -> None:
    entry = re.split(r"(?m)^##+ ", RUNBOOK.read_text().split(f"### {name}\n")[1])[0]
    assert f"*{ALERTS[name][0]['labels']['severity']}.*" in entry
    assert "**Do:**" in entry or "**Look and do:**" in entry


def test_the_runbook_refers_to_files_and_entries_that_exist() -> None:
    text = RUNBOOK.read_text()
    headings = {heading.lower() for heading in re.findall(r"(?m)^### (\w+)$", text)}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        path, _, anchor = target.partition("#")
        assert (RUNBOOK.parent / path).exists() if path else anchor in headings, target


def test_the_runbooks_commands_are_verbs_and_programs_of_this_repository() -> None:
    text = "\n".join(re.findall(r"`+([^`]+)`+", RUNBOOK.read_text()))
    verbs = set(re.findall(r"(?m)^([a-z-]+):.*## ", (ROOT / "Makefile").read_text()))
    assert set(re.findall(r"(?m)^make ([a-z-]+)", text)) <= verbs
    programs = set(re.findall(r"python -m ([\w.]+)", text))
    assert programs
    assert {name for name in programs if importlib.util.find_spec(name) is None} == set()


@pytest.mark.parametrize("promise", sorted(BUDGETS))
def test_budgets_burn_at_the_rates_and_windows_of_the_workbook(promise: str) -> None:
    stated = {
        rule["labels"]["window"]: rule["expr"] for found in ALERTS.values() for rule in found if _is_burn(rule, promise)
    }
    assert set(stated) == set(BURN_RATES)
    for long, (short, rate) in BURN_RATES.items():
        for window in (long, short):
            series = f"visionserve:{promise}_errors:ratio_rate{window}"
            assert f"{series} > {rate} * {BUDGETS[promise]}\n" in stated[long]
        assert f"visionserve:{promise}_errors:increase{long} >= 10\n" in stated[long]


def _is_burn(rule: dict[str, Any], promise: str) -> bool:
    return bool(rule["labels"].get("slo") == promise)


def test_each_series_of_a_query_is_recorded_or_exposed_by_a_part_of_the_service() -> None:
    asked = [rule["expr"] for rule in queries.all_rules()]
    asked += [expr for found in queries.panels().values() for expr in found] + queries.autoscalers()
    recorded = {rule["record"] for rule in queries.all_rules() if "record" in rule}
    unknown = {name for expr in asked for name in _series(expr)} - recorded - _exposed() - BUILT_IN
    assert unknown == set()


def _series(expr: str) -> set[str]:
    """The names of the series in an expression: what is neither a function, a keyword, a label nor a number."""
    bare = re.sub(r'\b(by|on|without|group_left)\s*\([^)]*\)|\{[^}]*\}|\[[^\]]*\]|"[^"]*"', " ", expr)
    words = re.findall(r"(?<![\w.:])[A-Za-z_][\w:]*(?!\s*\()(?![\w:])", bare)
    return set(words) - {"and", "or", "unless", "by", "on", "without", "group_left", "offset", "sum", "count", "max"}


def _exposed() -> set[str]:
    declared = yaml.safe_load((ROOT / "metrics.yaml").read_text())
    names = {
        entry["name"]
        for kind in declared.values()
        if isinstance(kind, dict)
        for found in kind.values()
        for entry in found
    }
    status = "".join(path.read_text() for path in (ROOT / "launcher").rglob("*.py"))
    names |= set(re.findall(r'"((?:gateway|visionserve)_\w+)"', status))
    parts = {f"{name}_{suffix}" for name in names for suffix in ("bucket", "sum", "count", "total")}
    return names | parts


def test_the_reference_is_what_the_shipped_bundle_gives() -> None:
    committed = (queries.RULES / "reference.yml").read_text()
    assert reference.rules(BUNDLE) == committed, "run `make dashboard`"


def test_the_reference_spells_labels_as_the_handlers_metrics_do() -> None:
    assert reference.UNSAFE_IN_METRICS.pattern == image_handler._UNSAFE_IN_METRICS.pattern


def test_inhibitions_name_alerts_that_exist() -> None:
    config = yaml.safe_load((ROOT / "monitoring" / "alertmanager.yml").read_text())
    for rule in config["inhibit_rules"]:
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            label, pattern = re.split(r"\s*=~?\s*", matcher, maxsplit=1)
            if label == "alertname":
                for name in pattern.strip('"').split("|"):
                    assert any(re.fullmatch(name, alert) for alert in ALERTS), name


def test_the_runbook_says_when_an_instance_without_workers_is_restarted() -> None:
    entry = RUNBOOK.read_text().split("### VisionserveWorkersMissing\n")[1].split("###")[0]
    entry = " ".join(entry.split())
    assert f"still missing after {workers.INCOMPLETE_AFTER_S:.0f} s, the launcher" in entry
    assert f"no worker has answered for {workers.NOT_LIVE_AFTER_S:.0f} s is not live" in entry
    assert f"after {workers.GONE_AFTER_S:.0f} s the launcher exits" in entry
