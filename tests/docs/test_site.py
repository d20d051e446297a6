"""The documentation site is built from the documents as they are, and every link in it leads somewhere."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repository import ROOT

pytest.importorskip("sphinx", reason="Sphinx is not installed: make .venv/.docs")
pytest.importorskip("autoapi", reason="sphinx-autoapi is not installed: make .venv/.docs")
pytestmark = pytest.mark.timeout(900)  # twelve seconds of CPU, and minutes on a busy machine
OPTIONS = ("--fail-on-warning", "--keep-going", "--quiet")


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", *OPTIONS, str(source), str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=800)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(ROOT / "docs", out)
    assert done.returncode == 0, done.stderr
    return out


def test_the_tutorial_is_the_first_page(site: Path) -> None:
    assert "<h1>Tutorial: train and serve a model" in (site / "index.html").read_text()


def test_every_document_is_a_page_that_the_navigation_names(site: Path) -> None:
    first = (site / "index.html").read_text()
    documents = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"tutorial"}
    assert len(documents) > 10
    for name in documents:
        assert (site / f"{name}.html").exists()
        assert f'href="{name}.html"' in first, name


def test_the_reference_has_the_clients_methods_with_what_they_say(site: Path) -> None:
    page = (site / "reference" / "visionserve" / "client" / "client" / "index.html").read_text()
    assert 'id="visionserve.client.client.Client.predict"' in page
    assert "Classify an image" in page
    assert (site / "reference" / "visionserve" / "classifier" / "index.html").exists()
    assert not (ROOT / "docs" / "reference").exists(), "the build leaves files among the documents"


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    shutil.copy(ROOT / "docs" / "conf.py", docs)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "visionserve").mkdir()
    (tmp_path / "visionserve" / "__init__.py").write_text('"""A package."""\n')
    conf = docs / "conf.py"
    conf.write_text(conf.read_text().split("SECTIONS = {")[0] + "SECTIONS = {}\n" + conf.read_text().split("}\n", 1)[1])
    (docs / "tutorial.md").write_text("# Tutorial\n\n[good](#tutorial) [a heading](#lost) [a document](lost.md)\n")
    done = build(docs, tmp_path / "out")
    assert done.returncode != 0
    assert "'lost'" in done.stderr
    assert "'lost.md'" in done.stderr
    assert done.stderr.count("xref_missing") == 2, done.stderr
