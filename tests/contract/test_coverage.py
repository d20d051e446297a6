"""Coverage is measured of all code: every package that import-linter knows, and the folders of scripts."""

import tomllib

from tests.repository import ROOT

TOOL = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]


def test_every_package_is_measured_and_has_a_floor() -> None:
    packages = set(TOOL["importlinter"]["root_packages"]) - {"tests"}
    assert set(TOOL["coverage"]["run"]["source"]) == packages | {"scripts", "docker"}
    assert TOOL["coverage"]["report"]["fail_under"] >= 70
