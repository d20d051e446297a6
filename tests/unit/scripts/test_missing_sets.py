"""Programs in an environment that has not what they need say what installs it."""

import subprocess
import sys
from pathlib import Path

import pytest

from visionserve import missing_package

ROOT = Path(__file__).parents[3]
# A path of the standard library only: -S leaves out site-packages, and -m finds the program in the working folder.
BARE = [sys.executable, "-S", "-m"]


@pytest.mark.parametrize(
    ("command", "requirement_set"),
    [
        (["training", "data", "manifest"], "train"),
        (["training", "fit"], "train"),
        (["training", "evaluate", "--bundle", "model_store/flowers", "--data.root", "none"], "train"),
        (["training", "package", "--bundle", "model_store/flowers", "--output", "never.mar"], "train"),
        (["monitoring", "drift", "check", "--bundle", "model_store/flowers", "--log", "none"], "train"),
        (["monitoring", "evaluate", "--images", "none"], "train"),
        (["loadtests", "run"], "dev"),
        (["loadtests", "soak"], "dev"),
        (["launcher", "serve"], "serve"),
        (["launcher", "doctor"], "serve"),
        (["gateway", "run"], "serve"),
        (["ui"], "ui"),
        (["scripts.sample_images", "never"], "serve"),
        (["scripts.screenshots"], "dev"),
        (["scripts.update_docs", "--check"], "train"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value[:2]),
)
def test_a_command_whose_set_is_not_installed_is_one_sentence(command: list[str], requirement_set: str) -> None:
    done = subprocess.run([*BARE, *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2)
    assert f"is not installed: `make .venv/.{requirement_set}`" in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_missing_module_of_this_repository_keeps_its_trace() -> None:
    with pytest.raises(ModuleNotFoundError):
        missing_package.sentence(ModuleNotFoundError("No module", name="training.lost"), "train")
