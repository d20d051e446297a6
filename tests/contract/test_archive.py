import ast
import json
import subprocess
import sys
import zipfile
from importlib import util
from pathlib import Path

import pytest

from tests.contract.conftest import BUNDLE
from tests.repository import ROOT
from visionserve.model_card import ModelCard

# What an archive runs in production: as a child whose only code is the archive's own.
ALONE = """
import sys
sys.path[0] = sys.argv[1]
import image_handler, visionserve
from pathlib import Path
from visionserve.classifier import Classifier
assert Path(visionserve.__file__).is_relative_to(sys.argv[1]), visionserve.__file__
classifier = Classifier.load(Path(sys.argv[1]))
print(classifier.card.name, "training" in sys.modules, "lightning" in sys.modules)
"""


@pytest.fixture(scope="module")
def unpacked(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(archive) as content:
        content.extractall(folder)
    return folder


def test_the_archive_holds_the_handler_the_library_and_the_model_and_nothing_else(archive: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        names = set(content.namelist())
    library = {
        path.relative_to(ROOT).as_posix()
        for folder in ("", "formats")
        for path in (ROOT / "visionserve" / folder).glob("*.py")
    }
    model = {"card.json", "model.onnx", "reference.safetensors"}
    handlers = {f"handlers/{path.name}" for path in (ROOT / "handlers").glob("*.py")} - {
        "handlers/image_handler.py"
    } | {"image_handler.py"}
    assert names == library | handlers | model | {"model-config.yaml", "MAR-INF/MANIFEST.json"}


def test_what_speaks_to_a_service_is_not_packed_into_one(archive: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        folders = {Path(name).parts[1] for name in content.namelist() if name.startswith("visionserve/")}
    assert {"client", "cli", "py.typed"} <= {path.name for path in (ROOT / "visionserve").iterdir()}
    assert not {"client", "cli", "py.typed"} & folders


def test_the_archive_tells_nothing_of_when_or_where_it_was_made(archive: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        assert {entry.date_time for entry in content.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert content.namelist() == sorted(content.namelist())
        text = b"".join(content.read(name) for name in content.namelist() if not name.endswith(".onnx"))
    assert str(ROOT).encode() not in text


def test_the_manifest_names_the_model_its_version_and_its_settings(archive: Path) -> None:
    card = ModelCard.load(BUNDLE / "card.json")
    with zipfile.ZipFile(archive) as content:
        model = json.loads(content.read("MAR-INF/MANIFEST.json"))["model"]
    assert model == {
        "modelName": card.name,
        "modelVersion": card.version,
        "handler": "image_handler.py",
        "configFile": "model-config.yaml",
    }


def test_the_packed_card_is_the_bundles_except_for_where_it_runs(unpacked: Path) -> None:
    ours, packed = ModelCard.load(BUNDLE / "card.json"), ModelCard.load(unpacked / "card.json")
    assert (packed.model, packed.device) == ("model.onnx", "cpu")
    assert (packed.labels, packed.input, packed.temperature) == (ours.labels, ours.input, ours.temperature)


def test_the_archive_needs_no_code_but_its_own(unpacked: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", ALONE, str(unpacked)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["flowers", "False", "False"]


def test_nothing_that_is_served_can_be_unpickled(unpacked: Path) -> None:
    assert not [path for path in unpacked.rglob("*") if path.suffix in (".pt", ".pth", ".pkl", ".bin", ".npy")]
    sources = [path.read_text() for path in unpacked.rglob("*.py")]
    assert not [source for source in sources if "pickle" in source or "torch.load" in source]


def test_the_handler_module_defines_one_class_under_a_name_of_its_own(unpacked: Path) -> None:
    tree = ast.parse((unpacked / "image_handler.py").read_text())
    assert [node.name for node in tree.body if isinstance(node, ast.ClassDef)] == ["ImageHandler"]
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert "handle" not in functions  # a module-level one would be taken instead of the class
    spec = util.find_spec("ts")
    assert spec is not None and spec.origin is not None
    assert "image_handler" not in {path.stem for path in Path(spec.origin).with_name("torch_handler").glob("*.py")}
