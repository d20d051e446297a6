"""launcher may not import the library, so what both must know is held together here."""

import base64
import json
import random
import zipfile
from pathlib import Path

import pytest

import visionserve
from handlers import image_handler
from launcher import archive as archives
from launcher import gpus, metadata, resources, torchserve_api
from launcher.plan import make_plan
from launcher.settings import SetupError
from visionserve.cli import local
from visionserve.model_card import ModelCard


def test_the_digest_of_an_archive_is_that_of_its_card(archive: Path, tmp_path: Path) -> None:
    packaged = archives.read(archive)
    (tmp_path / "card.json").write_text(json.dumps(packaged.card))
    card = ModelCard.load(tmp_path / "card.json")
    assert (packaged.digest, packaged.name, packaged.version) == (card.digest, card.name, card.version)


def test_the_server_says_the_librarys_version() -> None:
    assert visionserve.__version__ == metadata.VERSION


def test_the_launcher_and_the_handler_use_the_same_words() -> None:
    assert image_handler._DEVICES_VARIABLE == gpus.FOR_WORKERS
    assert image_handler._ACTIVITY_FILE == torchserve_api.ACTIVITY_FILE
    assert image_handler._REFUSAL_FILE == torchserve_api.REFUSAL_FILE
    source = Path(torchserve_api.__file__).read_text()
    assert f'"{image_handler._PROBE_HEADER}"' in source
    assert f'"{image_handler._WORKER_HEADER}"' in source
    gateway = (Path(gpus.__file__).parents[1] / "gateway" / "nginx.conf.j2").read_text().lower()
    for header in (image_handler._ARRIVAL_HEADER, image_handler._TIMEOUT_HEADER):
        assert f'"{header}"' in source
        assert f"proxy_set_header {header} " in gateway
    assert f'"{image_handler._PROBE_VARIABLE}"' in Path(torchserve_api.__file__).with_name("supervisor.py").read_text()


def test_the_drawn_photograph_is_a_small_jpeg() -> None:
    body = Path(metadata.__file__).with_name("sample.jpg").read_bytes()
    assert body.startswith(b"\xff\xd8")
    assert len(base64.b64encode(body)) < 5000


@pytest.mark.parametrize("quota", [0.5, 1.0, 1.4, 1.9])
@pytest.mark.parametrize("version", [1, 2])
def test_the_command_line_starts_as_many_processes_as_the_launcher(tmp_path: Path, quota: float, version: int) -> None:
    membership = tmp_path / "membership"
    if version == 1:
        (tmp_path / "cpu").mkdir()
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota * 100_000:.0f}\n")
        (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
        membership.write_text("1:cpu:/\n")
    else:
        (tmp_path / "cpu.max").write_text(f"{quota * 100_000:.0f} 100000\n")
        membership.write_text("0::/\n")
    assert local.cores(tmp_path) == make_plan(resources.cpus(tmp_path, membership), None).workers


@pytest.mark.parametrize("name", ["model.onnx", "reference.safetensors"])
@pytest.mark.parametrize("damage", ["half", "empty", "random", "longer", "text"])
def test_a_damaged_file_inside_a_valid_archive_is_one_sentence(
    archive: Path, tmp_path: Path, name: str, damage: str
) -> None:
    target = tmp_path / archive.name
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.namelist():
            data = old.read(entry)
            if entry == name:
                data = {
                    "half": data[: len(data) // 2],
                    "empty": b"",
                    "random": random.Random(1).randbytes(len(data)),
                    "longer": data + data[:1000],
                    "text": b"<html>not found</html>",
                }[damage]
            new.writestr(entry, data)
    with pytest.raises(SetupError, match=r"is not a visionserve archive .*: build it with `make archive`"):
        archives.read(target)
