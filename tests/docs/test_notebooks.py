"""The notebooks run from top to bottom, without a network, in a folder that is not theirs."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

from scripts import sample_images
from tests.repository import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
# A tenth of it is enough on a machine that has nothing else to do.
TIMEOUT_S = 500
KINDS = ("text/markdown", "text/plain")


def test_there_are_notebooks_for_every_step() -> None:
    assert [path.name[:2] for path in NOTEBOOKS] == ["01", "02", "03"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs(path: Path) -> None:
    cells = json.loads(path.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
    assert cells[0]["cell_type"] == "markdown"


@pytest.fixture
def execute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., NotebookNode]:
    def run(path: Path, **chosen: Path | str) -> NotebookNode:
        for name in ("IMAGES", "BUNDLE", "NETWORK", "SIZE", "INIT"):
            monkeypatch.delenv(name, raising=False)
        for name, value in chosen.items():
            monkeypatch.setenv(name, str(value))
        monkeypatch.setenv("PYTHONWARNINGS", "ignore")
        monkeypatch.setenv("OMP_NUM_THREADS", "1")  # on images this small a second thread only waits for the first
        monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
        resources = {"metadata": {"path": str(ROOT / "docs" / "notebooks")}}
        executed: NotebookNode = NotebookClient(notebook, timeout=TIMEOUT_S, resources=resources).execute()
        if folder := os.environ.get("VISIONSERVE_NOTEBOOKS"):  # to look at the pictures
            nbformat.write(executed, Path(folder, f"{len(chosen)}-{path.name}"))  # type: ignore[no-untyped-call]
        return executed

    return run


def _pictures(notebook: NotebookNode) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def _text(notebook: NotebookNode) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(str(output.get("data", {}).get(kind, "")) for output in outputs for kind in KINDS)


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S + 60)
@pytest.mark.filterwarnings("ignore")  # Jupyter's own; what a cell warns of is not seen here
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, execute: Callable[..., NotebookNode]) -> None:
    assert _pictures(execute(path)) >= 3


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S + 60)
@pytest.mark.filterwarnings("ignore")
def test_the_evaluation_takes_any_bundle_and_any_labelled_folder(
    tmp_path: Path, execute: Callable[..., NotebookNode]
) -> None:
    """Two labels of the flower model and a folder that is none of them; drawn, so that most are mistakes."""
    for number, label in enumerate(("sunflower", "rose", "tractor")):
        (tmp_path / "images" / label).mkdir(parents=True)
        for image in range(3):
            sample_images.sample("circle", 10 * number + image).save(tmp_path / "images" / label / f"{image}.jpg")
    notebook = execute(NOTEBOOKS[2], BUNDLE=ROOT / "model_store" / "flowers", IMAGES=tmp_path / "images")
    assert "(resnet18) on 6 images" in _text(notebook)
    assert re.search(r"[4-6] of 6 images were misclassified", _text(notebook))
    assert _pictures(notebook) >= 5
