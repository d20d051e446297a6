"""Java's class data for TorchServe: written, taken where it fits, done without where it does not."""

import os
import shutil
from pathlib import Path

import psutil
import pytest

from launcher import jvm_cds, process
from launcher.settings import CLASS_DATA, SetupError, java_program
from tests.e2e.conftest import E2E, ROOT, Service

pytestmark = E2E
CONFIG = ROOT / "config.properties"
JAVA = java_program(os.environ)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("prefix") / "share" / "classes.jsa"
    assert jvm_cds.prepare(CONFIG, os.environ, file)
    return file


def test_what_is_written_fits_is_kept_and_is_all_that_is_left(written: Path) -> None:
    before = written.stat()
    assert jvm_cds.fits(JAVA, written)
    assert not jvm_cds.prepare(CONFIG, os.environ, written)
    assert written.stat().st_mtime_ns == before.st_mtime_ns
    assert list(written.parent.iterdir()) == [written]


def test_it_does_not_fit_another_torchserve(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jar = Path(process.class_path()).with_name("model-server.jar")
    shutil.copy(jar, tmp_path)
    monkeypatch.setattr(process, "class_path", lambda: str(tmp_path / "*"))
    assert not jvm_cds.fits(JAVA, written)


def test_what_is_no_class_data_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "classes.jsa"
    file.write_bytes(b"no class data")
    assert not jvm_cds.fits(JAVA, file)
    assert jvm_cds.prepare(CONFIG, os.environ, file)
    assert jvm_cds.fits(JAVA, file)


def test_the_service_starts_with_it(service: Service) -> None:
    if not CLASS_DATA.is_file():
        pytest.skip("there is none: `.venv/bin/python -m launcher prepare` writes it")
    java = next(child for child in psutil.Process(service.process.pid).children() if child.name() == "java")
    assert str(CLASS_DATA.resolve()) in {mapped.path for mapped in java.memory_maps()}


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "share").touch()
    with pytest.raises(SetupError, match=r"share/classes\.jsa cannot be written"):
        jvm_cds.prepare(CONFIG, os.environ, tmp_path / "share" / "classes.jsa")


def test_a_torchserve_that_does_not_start_is_said(tmp_path: Path) -> None:
    config = tmp_path / "config.properties"
    config.write_text(CONFIG.read_text().replace("vmargs=", "vmargs=-XX:NoSuchOption "))
    with pytest.raises(SetupError, match="does not start without a model"):
        jvm_cds.prepare(config, os.environ, tmp_path / "classes.jsa")
    assert list(tmp_path.iterdir()) == [config]
