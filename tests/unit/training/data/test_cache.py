import pickle
from pathlib import Path

import numpy as np
import pytest

from tests.unit.training import synthetic_images
from training.data import cache, datasets, manifest
from training.data.cache import Files, open_cache


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> manifest.Manifest:
    root = synthetic_images.image_folder(tmp_path_factory.mktemp("data") / "colours", per_label=4)
    return manifest.build(datasets.collect("imagefolder", root), "stratified", 1)


def test_without_a_cache_the_pixels_are_the_same(images: manifest.Manifest, tmp_path: Path) -> None:
    cached, fresh = open_cache(images, tmp_path, 24), Files(images, 24)
    assert len(cached) == len(fresh) == 12
    assert cached.size == sum(cached[place].size for place in range(12))
    for place in range(12):
        assert np.array_equal(cached[place], fresh[place])


def test_another_process_is_sent_the_files_names_and_not_the_pixels(images: manifest.Manifest, tmp_path: Path) -> None:
    cached = open_cache(images, tmp_path, 24)
    sent = pickle.dumps(cached)
    assert len(sent) < cached.size / 4
    other = pickle.loads(sent)
    assert all(np.array_equal(other[place], cached[place]) for place in range(12))


def test_a_cache_larger_than_memory_says_what_else_there_is(
    images: manifest.Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cache, "memory", lambda: 1000)
    open_cache(images, tmp_path, 24)
    assert "--data.cache false" in caplog.text


@pytest.mark.parametrize("name", ["images.py", "formats/decoders.py", "formats/srgb.py", "formats/heif.py"])
def test_another_decoder_decodes_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_bytes
    before = cache.decoder_key()
    cache.decoder_key.cache_clear()
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + b"#" * path.as_posix().endswith(f"/{name}"))
    try:
        assert cache.decoder_key() != before
    finally:
        cache.decoder_key.cache_clear()
