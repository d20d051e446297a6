"""The Python package: what its wheel holds and needs, and an editable install beside a folder of the same name."""

import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest

from tests.repository import ROOT, tracked

# Locked with the rest; an environment that is older than its lock file gets it by `make .venv/.dev`.
flit = pytest.importorskip("flit_core.buildapi", reason="flit_core is not installed: make .venv/.dev")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what a build reads, in a folder with the package's name."""
    copy = tmp_path / "clones" / "visionserve"
    for name in tracked("visionserve", "pyproject.toml", "README.md", "LICENSE"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    monkeypatch.chdir(copy)
    return copy


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_wheel_holds_the_package_and_needs_two_small_libraries(checkout: Path, tmp_path: Path) -> None:
    before = names(checkout)
    wheel = tmp_path / flit.build_wheel(str(tmp_path))
    assert names(checkout) == before, "the build leaves files in the checkout"
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if not name.startswith("visionserve-")}
        metadata = Parser().parsestr(archive.read(f"visionserve-{PROJECT['version']}.dist-info/METADATA").decode())
    assert packed == {name for name in before if name.startswith("visionserve/")}
    assert "visionserve/py.typed" in packed
    plain = {re.split(r"[<>=]", entry)[0] for entry in metadata.get_all("Requires-Dist", []) if "extra" not in entry}
    assert plain == {"httpx", "tqdm"}
    assert {"serve", "train", "ui", "all"} <= set(metadata.get_all("Provides-Extra", []))


def test_a_script_beside_an_editable_clone_of_the_same_name_imports_the_package(checkout: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    wheel = tmp_path / flit.build_editable(str(tmp_path))
    (site,) = environment.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    script = checkout.parent / "script.py"  # Python puts the script's folder first: visionserve there is the clone
    script.write_text(
        "import visionserve, visionserve.client as client; print(visionserve.__version__, client.__file__)"
    )
    done = subprocess.run([environment / "bin" / "python", script], capture_output=True, text=True, check=False)
    assert done.stdout.split() == [PROJECT["version"], str(checkout / "visionserve" / "client" / "__init__.py")], done


def locked(name: str) -> set[str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    return {match[1].lower().replace("_", "-") for match in re.finditer(r"(?m)^([A-Za-z0-9_.-]+)(?:\[.*\])?==", text)}


def required(extra: str) -> Iterator[str]:
    for requirement in PROJECT["optional-dependencies"][extra]:
        name = re.split(r"[\[<>=; ]", requirement)[0]
        if name == "visionserve":
            for nested in re.search(r"\[(.*)\]", requirement)[1].split(","):  # type: ignore[index]
                yield from required(nested)
        else:
            yield name.lower().replace("_", "-")


@pytest.mark.parametrize("name", ["run", "serve", "train", "ui", "docs", "notebooks", "dev"])
def test_a_lock_file_has_all_that_its_extra_and_the_package_need(name: str) -> None:
    plain = {re.split(r"[<>=]", entry)[0] for entry in PROJECT["dependencies"]}
    assert set(required(name)) | plain <= locked(name)


def test_the_tests_have_what_traces_need() -> None:
    assert set(required("otel")) <= locked("dev")
