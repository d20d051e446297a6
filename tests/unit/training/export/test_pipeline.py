"""dvc.yaml: photographs to archive once, nothing at all the second time, and only what a change concerns after it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.unit.training import synthetic_images
from training import recipe as recipes

ROOT = Path(__file__).resolve().parents[4]
BIN = Path(sys.executable).parent
CODE = ("training", "visionserve", "handlers", "dvc.yaml", ".dvc/config", ".dvcignore")


def dvc(checkout: Path, *arguments: str) -> str:
    found = subprocess.run(
        [str(BIN / "dvc"), *arguments],
        cwd=checkout,
        env={
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "HOME": str(checkout),
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout + found.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of the code with a recipe and photographs of its own."""
    place = tmp_path / "checkout"
    (place / ".dvc").mkdir(parents=True)
    for name in CODE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, place / name)
    synthetic_images.image_folder(place / "my photographs")
    recipes.save(synthetic_images.recipe(Path("my photographs"), epochs=2), place / "my recipe.yaml")
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params |= {
        "source": "imagefolder",
        "root": "my photographs",
        "recipe": "my recipe.yaml",
        "init": "none",
        "place": "runs/my pipeline",
    }
    (place / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
    return place


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_pipeline_runs_once_then_does_nothing_then_only_what_a_change_concerns(checkout: Path) -> None:
    dvc(checkout, "config", "--local", "core.no_scm", "true")
    first = dvc(checkout, "repro")
    assert [line for line in first.splitlines() if line.startswith("Running stage")] == [
        f"Running stage '{name}':" for name in ("prepare", "fit", "export", "evaluate", "package")
    ]
    assert (checkout / "runs/my pipeline/model.mar").is_file()

    assert "up to date" in dvc(checkout, "repro")
    assert "up to date" in dvc(checkout, "status")

    shutil.rmtree(checkout / "runs/my pipeline/bundle")
    assert "Running stage" not in dvc(checkout, "repro")  # from the cache
    with (checkout / "training/export/package.py").open("a", encoding="utf-8") as file:
        file.write("# another line\n")
    again = dvc(checkout, "repro")
    assert [line for line in again.splitlines() if line.startswith("Running stage")] == ["Running stage 'package':"]

    dvc(checkout, "push")
    assert any((checkout / "runs/dvc-remote").rglob("*"))
