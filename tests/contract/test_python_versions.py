"""pyproject.toml says which Pythons are supported; all else that names one agrees with it."""

import re
import tomllib

import pytest
import yaml

from launcher import preflight
from scripts import bare_machine, install, lock
from tests.repository import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OLDEST, PAST = (int(minor) for minor in re.findall(r"3\.(\d+)", PYPROJECT["project"]["requires-python"]))
SUPPORTED = [f"3.{minor}" for minor in range(OLDEST, PAST)]


def test_the_set_up_the_launcher_and_the_lock_files_know_the_same_versions() -> None:
    assert SUPPORTED[0] == "3.11"
    assert [f"3.{minor}" for minor in install.supported()] == SUPPORTED
    assert (preflight.OLDEST_PYTHON, preflight.NEWEST_PYTHON) == ((3, OLDEST), (3, PAST - 1))
    assert lock.oldest_python() == SUPPORTED[0]


def test_the_code_is_checked_for_the_oldest_version() -> None:
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py3{OLDEST}"
    assert PYPROJECT["tool"]["mypy"]["python_version"] == SUPPORTED[0]


@pytest.mark.parametrize(("workflow", "job"), [("ci.yml", "check"), ("package.yml", "check")])
def test_a_workflow_runs_every_version(workflow: str, job: str) -> None:
    matrix = yaml.safe_load((ROOT / ".github" / "workflows" / workflow).read_text())["jobs"][job]["strategy"]["matrix"]
    assert matrix["python"] == SUPPORTED


@pytest.mark.parametrize("document", ["README.md", "docs/tutorial.md"])
def test_a_document_names_the_oldest_and_the_newest(document: str) -> None:
    assert f"Python {SUPPORTED[0]} to {SUPPORTED[-1]}" in (ROOT / document).read_text()


def test_a_workflow_runs_the_quick_start_on_every_bare_machine() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert jobs["quick-start"]["strategy"]["matrix"]["suite"] == list(bare_machine.SUITES)


def test_the_images_python_and_those_of_the_bare_machines_are_supported() -> None:
    (base,) = re.findall(r"(?m)^ARG BASE=python:(3\.\d+)-", (ROOT / "Dockerfile").read_text())
    assert {base, *bare_machine.SUITES.values()} <= set(SUPPORTED)
