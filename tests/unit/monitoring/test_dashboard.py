import itertools
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.__main__ import main
from monitoring.dashboard import render
from tests import queries

Json = dict[str, Any]


@pytest.fixture(scope="module")
def content() -> Json:
    return render.dashboard()


@pytest.fixture(scope="module")
def panels(content: Json) -> list[Json]:
    return [panel for panel in content["panels"] if panel["type"] != "row"]


def test_the_committed_dashboard_is_what_the_program_writes(tmp_path: Path) -> None:
    written = tmp_path / "dashboard.json"
    assert main(["dashboard", "--out", str(written)]) == 0
    assert written.read_text() == queries.DASHBOARD.read_text(), "run `make dashboard`"


def test_a_file_that_cannot_be_written_is_an_error_of_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dashboard", "--out", str(tmp_path / "missing" / "dashboard.json")]) == 1
    assert capsys.readouterr().err.endswith("dashboard.json: No such file or directory\n")


def test_panels_have_numbers_of_their_own(content: Json) -> None:
    numbers = [panel["id"] for panel in content["panels"]]
    assert len(set(numbers)) == len(numbers) > 20


def test_titles_tell_panels_apart(panels: list[Json]) -> None:
    titles = [panel["title"] for panel in panels]
    assert len(set(titles)) == len(titles)


def test_panels_fill_their_rows_without_overlapping(content: Json) -> None:
    occupied: set[tuple[int, int]] = set()
    for panel in content["panels"]:
        position = panel["gridPos"]
        cells = set(
            itertools.product(
                range(position["x"], position["x"] + position["w"]), range(position["y"], position["y"] + position["h"])
            )
        )
        assert not cells & occupied, panel["title"]
        occupied |= cells
    height = max(row for _, row in occupied) + 1
    assert occupied == set(itertools.product(range(render.COLUMNS), range(height)))


def test_every_panel_says_what_it_means_and_in_which_unit(panels: list[Json]) -> None:
    for panel in panels:
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in {"percentunit", "reqps", "ops", "s", "none", "bytes"}


def test_thresholds_rise_and_begin_at_the_bottom(panels: list[Json]) -> None:
    for panel in panels:
        first, *others = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
        assert first is None
        assert others == sorted(others)


def test_each_query_has_a_letter_and_asks_the_chosen_prometheus(panels: list[Json]) -> None:
    for panel in panels:
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == list("ABCDEFGH"[: len(letters)])
        for query in (panel, *panel["targets"]):
            assert query["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_every_variable_that_a_query_uses_can_be_chosen(content: Json, panels: list[Json]) -> None:
    variables = {variable["name"] for variable in content["templating"]["list"]}
    used = {name for panel in panels for target in panel["targets"] for name in re.findall(r"\$(\w+)", target["expr"])}
    assert used - {"__rate_interval"} == variables - {"datasource"}


def test_legends_use_labels_that_their_queries_keep(panels: list[Json]) -> None:
    for panel in panels:
        for target in panel["targets"]:
            labels = re.findall(r"sum by \(([\w, ]+)\)", target["expr"])
            if labels and target["expr"].startswith("sum by"):
                assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= set(labels[0].split(", "))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing: install Debian's prometheus")
def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    expressions = [expr for panel in queries.panels().values() for expr in panel]
    rules = [{"record": f"panel:query:{number}", "expr": expr} for number, expr in enumerate(expressions)]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(expressions)} rules found" in done.stdout
