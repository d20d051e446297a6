"""launcher may not import the library, so what both must know is held together here."""

import base64
import json
from pathlib import Path

import visionserve
from handlers import image_handler
from launcher import archive as archives
from launcher import gpus, metadata, torchserve_api
from visionserve.model_card import ModelCard


def test_the_digest_of_an_archive_is_that_of_its_card(archive: Path, tmp_path: Path) -> None:
    found = archives.read(archive)
    (tmp_path / "card.json").write_text(json.dumps(found.card))
    card = ModelCard.load(tmp_path / "card.json")
    assert (found.digest, found.name, found.version) == (card.digest, card.name, card.version)


def test_the_server_says_the_librarys_version() -> None:
    assert visionserve.__version__ == metadata.VERSION


def test_the_launcher_and_the_handler_use_the_same_words() -> None:
    assert image_handler._DEVICES_VARIABLE == gpus.FOR_WORKERS
    source = Path(torchserve_api.__file__).read_text()
    assert f'"{image_handler._PROBE_HEADER}"' in source
    assert f'"{image_handler._WORKER_HEADER}"' in source
    assert f'"{image_handler._PROBE_VARIABLE}"' in Path(torchserve_api.__file__).with_name("supervisor.py").read_text()


def test_the_drawn_photograph_is_a_small_jpeg() -> None:
    body = Path(metadata.__file__).with_name("sample.jpg").read_bytes()
    assert body.startswith(b"\xff\xd8")
    assert len(base64.b64encode(body)) < 5000
