import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from tests.unit.conftest import TinyBundle
from training import golden
from training.__main__ import main
from training.cli import export
from training.export import contents, gates, package
from training.networks import SYNTHETIC_IMAGES, load_network, synthetic_images
from visionserve import novelty, part_layer
from visionserve.engines import WEIGHTS, Outputs
from visionserve.errors import BundleError
from visionserve.model_card import ModelCard


@pytest.fixture(scope="module")
def bundle(tiny: TinyBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle with half precision weights and golden answers, as training leaves one."""
    folder = tmp_path_factory.mktemp("bundle") / "shapes"
    shutil.copytree(tiny.directory, folder)
    halves = {name: t.half() if t.is_floating_point() else t for name, t in tiny.network.state_dict().items()}
    save_file(halves, folder / WEIGHTS)
    golden.write(folder)
    return folder


def test_the_same_bundle_gives_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    for name in ("one.mar", "two.mar"):
        package.build(bundle, tmp_path / "a new folder" / name, "cpu")
    assert (tmp_path / "a new folder/one.mar").read_bytes() == (tmp_path / "a new folder/two.mar").read_bytes()


def test_an_archive_is_compared_with_its_bundle_by_content_and_not_by_time(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    current, archive = tmp_path / "shapes", tmp_path / "shapes.mar"
    shutil.copytree(bundle, current)
    options = ["package", "--bundle", str(current), "--output", str(archive), "--profile", "cpu", "--if-changed"]
    assert main(options) == 0
    assert contents.differences(archive, current, "cpu") == []
    before = archive.stat().st_mtime_ns
    assert main(options) == 0
    assert "shapes.mar is up to date" in capsys.readouterr().out
    assert archive.stat().st_mtime_ns == before
    card = ModelCard.load(current / "card.json")
    replace(card, version="0.9").save(current / "card.json")  # as if an older bundle had been moved back
    os.utime(current / "card.json", (0, 0))
    assert main(options) == 0
    assert "in card.json: building it again" in capsys.readouterr().out
    with zipfile.ZipFile(archive) as content:
        assert json.loads(content.read("card.json"))["version"] == "0.9"


@pytest.mark.parametrize("name", ["model.onnx", "visionserve/batch.py", "reference.safetensors", "more.txt"])
def test_every_kind_of_changed_entry_makes_an_archive_out_of_date(bundle: Path, tmp_path: Path, name: str) -> None:
    package.build(bundle, tmp_path / "shapes.mar", "cpu")
    with (
        zipfile.ZipFile(tmp_path / "shapes.mar") as source,
        zipfile.ZipFile(tmp_path / "changed.mar", "w") as target,
    ):
        for entry in {*source.namelist(), name}:
            target.writestr(entry, b"other" if entry == name else source.read(entry))
    assert contents.differences(tmp_path / "changed.mar", bundle, "cpu") == [name]


def test_the_comparison_imports_nothing_that_takes_seconds() -> None:
    program = "import sys, training.export.contents; print('torch' in sys.modules or 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_packed_names_are_those_of_the_library() -> None:
    assert (contents.REFERENCE, contents.WEIGHTS, contents.PARTS) == (
        novelty.FILE_NAME,
        WEIGHTS,
        part_layer.FILE_NAME,
    )


def test_the_gpu_archive_holds_a_half_precision_network_for_cuda(bundle: Path, tmp_path: Path) -> None:
    findings = package.build(bundle, tmp_path / "gpu.mar", "gpu")
    with zipfile.ZipFile(tmp_path / "gpu.mar") as archive:
        card = json.loads(archive.read("card.json"))
        assert b"batchSize: 32" in archive.read("model-config.yaml")
        assert archive.read("weights.safetensors") == (bundle / "weights.safetensors").read_bytes()
    assert (card["device"], card["model"]) == ("cuda", "model.onnx")
    assert {finding.gate for finding in findings} == {"golden", "export", "batching", "torch export", "torch batching"}


def test_the_tuner_s_values_replace_the_profile_s(bundle: Path, tmp_path: Path) -> None:
    tuned = tmp_path / "shapes"
    shutil.copytree(bundle, tuned)
    (tuned / contents.TUNED).write_text("batchSize: 6\nminWorkers: 3\nhandler: {threads: 2}\n")
    package.build(tuned, tmp_path / "tuned.mar", "cpu")
    with zipfile.ZipFile(tmp_path / "tuned.mar") as archive:
        config = yaml.safe_load(archive.read("model-config.yaml"))
    assert (config["batchSize"], config["minWorkers"], config["maxBatchDelay"]) == (6, 3, 1)
    assert config["handler"] == {"threads": 2, "runtime": "auto"}


@pytest.mark.parametrize("content", ["batchsize: 6", "handler: 4", "- 1", "{"])
def test_tuned_values_that_nobody_would_read_stop_the_build(bundle: Path, tmp_path: Path, content: str) -> None:
    tuned = tmp_path / "shapes"
    shutil.copytree(bundle, tuned)
    (tuned / contents.TUNED).write_text(content)
    with pytest.raises(BundleError, match="fix or delete it"):
        package.build(tuned, tmp_path / "never.mar", "cpu")


def test_a_network_that_is_not_the_bundles_stops_the_build_with_numbers(bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "shapes"
    shutil.copytree(bundle, other)
    answers = json.loads((other / golden.FILE_NAME).read_text())
    answers[0][0]["probability"] += 0.3
    (other / golden.FILE_NAME).write_text(json.dumps(answers))
    with pytest.raises(BundleError, match=r"gate golden: FAILED: .* 0\.3, allowed 0\.02"):
        package.build(other, tmp_path / "never.mar", "cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["shapes"]


@pytest.mark.parametrize("missing", ["golden.json", "weights.safetensors", "model.int8.onnx", "reference.safetensors"])
def test_an_incomplete_bundle_is_refused_by_name(bundle: Path, tmp_path: Path, missing: str) -> None:
    other = tmp_path / "shapes"
    shutil.copytree(bundle, other)
    (other / missing).unlink()
    with pytest.raises(BundleError, match=missing):
        package.build(other, tmp_path / "never.mar", "cpu")


@pytest.mark.parametrize("name", ["infer", "models", "Ready", "v2", "health"])
def test_a_model_named_like_a_path_of_the_protocols_is_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    replace(ModelCard.load(copy / "card.json"), name=name).save(copy / "card.json")
    with pytest.raises(BundleError, match=f"cannot be named {name}"):
        package.build(copy, tmp_path / "out.mar", "cpu")


def test_drawn_images_are_the_same_everywhere_and_differ_from_each_other() -> None:
    images = synthetic_images(64)
    assert images.shape == (SYNTHETIC_IMAGES, 64, 64, 3)
    assert images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == SYNTHETIC_IMAGES
    assert int(images.astype(np.int64).sum()) == 12875639


def test_only_confident_answers_count_as_flipped() -> None:
    expected = np.array([[0.9, 0.1], [0.55, 0.45]])
    served = np.array([[0.1, 0.9], [0.45, 0.55]])
    assert gates.confident_flips(expected, served) == 1


class DriftingEngine:
    """Answers an image differently in a batch of another size, by one bit."""

    device = "cpu"

    def run(self, images: np.ndarray) -> Outputs:
        sums = images.reshape(len(images), -1).sum(1, dtype=np.float32)[:, None]
        logits = sums if len(images) == 1 else np.nextafter(sums, np.float32(np.inf))
        return Outputs(logits, sums, sums)


def test_an_answer_that_depends_on_its_batch_by_one_bit_is_found() -> None:
    images = synthetic_images(8, 3)
    engine = DriftingEngine()
    assert gates.items_that_depend_on_their_batch(engine, images, engine.run(images)) == 3  # type: ignore[arg-type]


def test_weights_of_another_network_are_refused(bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "shapes"
    shutil.copytree(bundle, other)
    save_file({"conv1.weight": torch.zeros(1)}, other / WEIGHTS)
    with pytest.raises(BundleError, match="does not fit resnet18 with 3 labels"):
        load_network(other)
    assert ModelCard.load(other / "card.json").architecture == "resnet18"


@pytest.mark.parametrize("keep", [True, False])
def test_an_archive_of_another_version_is_kept_beside_or_said_to_be_replaced(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], keep: bool
) -> None:
    card = json.loads((bundle / "card.json").read_text())
    archive = tmp_path / "mine.mar"
    with zipfile.ZipFile(archive, "w") as old:
        old.writestr("card.json", json.dumps(card | {"version": "0.1"}))
    before = archive.read_bytes()
    with export._other_version(archive, bundle, keep=keep):
        archive.write_bytes(b"new")
    kept = tmp_path / f"{card['name']}-0.1.mar"
    printed = capsys.readouterr().out
    if keep:
        assert kept.read_bytes() == before
        assert f"which is now {kept}" in printed
    else:
        assert "which is replaced" in printed
    assert sorted(tmp_path.iterdir()) == sorted([archive, *([kept] if keep else [])])


def test_nothing_is_kept_of_a_build_that_fails(bundle: Path, tmp_path: Path) -> None:
    archive = tmp_path / "mine.mar"
    card = json.loads((bundle / "card.json").read_text())
    with zipfile.ZipFile(archive, "w") as old:
        old.writestr("card.json", json.dumps(card | {"version": "0.1"}))
    with pytest.raises(BundleError), export._other_version(archive, bundle, keep=True):
        raise BundleError("a gate failed")
    assert list(tmp_path.iterdir()) == [archive]
