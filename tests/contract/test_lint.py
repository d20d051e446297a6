"""The linter's settings hold whatever a training run leaves in the root."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_the_folder_of_a_tracker_in_the_root_is_not_taken_for_a_package_of_ours(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / "visionserve").mkdir()
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    program = tmp_path / "program.py"
    program.write_text(f"import {name}\nimport yaml\n\nimport visionserve\n\nprint(yaml, {name}, visionserve)\n")
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "I", program.name]
    checked = subprocess.run(ruff, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert checked.returncode == 0, checked.stdout


def test_they_are_ignored_by_git() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    assert {"wandb/", "mlruns/"} <= set(ignored)
