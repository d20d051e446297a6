"""Several processes train as one: the same images at every step, the same losses, every file written once."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.unit.training import synthetic_images
from tests.unit.training.learning_curves import curves
from tests.unit.training.markers import LIGHTNING
from training import distributed
from training import recipe as recipes
from training.data.augment import blend
from training.data.datamodule import EpochSampler, Portion
from training.fit.run import Run
from training.fit.trainer import fit
from training.recipe import Augment, Machine, Optimizer, Recipe, Stage
from visionserve import network
from visionserve.errors import BundleError

pytestmark = LIGHTNING


def _steady(images: Path) -> Recipe:
    """A recipe in which a difference in the last digit stays one: batch norms in training would blow it up."""
    norms = [name for name, part in network.build("resnet18", 3).named_modules() if isinstance(part, nn.BatchNorm2d)]
    return synthetic_images.recipe(
        images,
        architecture="resnet18",
        optimizer=Optimizer(learning_rate=0.02, head_epochs=1, average_decay=0.9, clip=1.0),
        stages=(Stage(0.5, 24, ("conv1", *norms)), Stage(1.0, synthetic_images.SIDE, tuple(norms))),
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_learn_what_one_learns_from_the_same_batches(tmp_path: Path) -> None:
    recipe = _steady(synthetic_images.image_folder(tmp_path / "colours"))
    one, two = Run(tmp_path / "one"), Run(tmp_path / "two")
    fit(recipe, one)
    recipes.save(recipe, tmp_path / "recipe.yaml")
    command = [sys.executable, "-m", "training", "fit", "-c", str(tmp_path / "recipe.yaml"), "--machine.devices", "2"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--run", str(two.folder)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.count("validation accuracy") == 1
    assert two.manifest.read_bytes() == one.manifest.read_bytes()
    assert len(list(two.folder.glob("version_*/events*"))) == len(list(one.folder.glob("version_*/events*")))
    alone, together = curves(one.folder), curves(two.folder)
    assert len(alone["train/loss"]) == recipe.epochs
    assert together == {name: pytest.approx(values, rel=1e-5) for name, values in alone.items()}
    weights = load_file(two.weights)
    for name, expected in load_file(one.weights).items():
        torch.testing.assert_close(weights[name], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.timeout(600)
def test_processes_that_torchrun_starts_train_as_one(tmp_path: Path) -> None:
    recipe = replace(synthetic_images.recipe(synthetic_images.image_folder(tmp_path / "colours")), epochs=1)
    recipes.save(recipe, tmp_path / "recipe.yaml")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    command = ["-m", "--", "training", "fit", "-c", str(tmp_path / "recipe.yaml"), "--run", str(tmp_path / "run")]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, "--rdzv-endpoint", "127.0.0.1:0", *command],
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[4])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("validation accuracy") == 1
    assert Run(tmp_path / "run").weights.is_file()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_batch_norms_of_two_processes_stay_close_to_those_of_one(tmp_path: Path) -> None:
    """Without a GPU each process normalises by its half of the batch, so the losses are near, not equal."""
    recipe = synthetic_images.recipe(
        synthetic_images.image_folder(tmp_path / "colours", 20),
        architecture="resnet18",
        epochs=2,
        batch_size=32,
        optimizer=Optimizer(learning_rate=0.01, head_epochs=0, average_decay=0.5),
        stages=(Stage(1.0, synthetic_images.SIDE),),
    )
    one, two = Run(tmp_path / "one"), Run(tmp_path / "two")
    fit(recipe, one)
    recipes.save(recipe, tmp_path / "recipe.yaml")
    command = [sys.executable, "-m", "training", "fit", "-c", str(tmp_path / "recipe.yaml"), "--machine.devices", "2"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "--run", str(two.folder)], env=environment, capture_output=True, check=True)
    alone, together = curves(one.folder), curves(two.folder)
    assert together["train/loss"] == pytest.approx(alone["train/loss"], rel=0.2)


def test_the_shares_of_the_processes_are_the_batches_of_one(tmp_path: Path) -> None:
    recipe, places = synthetic_images.recipe(tmp_path), list(range(100, 127))
    portions = [Portion(places)]
    whole = EpochSampler(portions, recipe)
    shares = [EpochSampler(portions, replace(recipe, machine=Machine(devices=2, nodes=2)), rank) for rank in range(4)]
    for sampler in (whole, *shares):
        sampler.set_epoch(3)
    samples = list(whole)
    assert sorted(sample.row for sample in samples) == places
    assert [len(sampler) for sampler in shares] == [6] * 4
    for step in range(3):
        together = [sample for sampler in shares for sample in list(sampler)[2 * step : 2 * step + 2]]
        assert together == samples[8 * step : 8 * step + 8]


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_batch_is_blended_the_same_in_one_piece_and_in_shares(kind: str) -> None:
    images, settings = torch.rand(8, 3, 12, 10), Augment(mixup=float(kind == "mixup"), cutmix=float(kind == "cutmix"))
    whole = blend(images, settings, 7)
    shares = [blend(part, settings, 7) for part in (images[:4], images[4:])]
    assert whole.share < 1
    assert torch.equal(torch.cat([share.images for share in shares]), whole.images)
    assert {share.share for share in shares} == {whole.share}


def test_the_launcher_says_how_many_processes_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    recipe = replace(synthetic_images.recipe(tmp_path), batch_size=16)
    assert distributed.from_launcher(recipe).machine == Machine(devices=4, nodes=2)


def test_several_machines_without_a_launcher_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(BundleError, match="torchrun --nnodes 2"):
        distributed.from_launcher(synthetic_images.recipe(tmp_path, machine=Machine(nodes=2)))


def test_a_batch_that_cannot_be_shared_evenly_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="multiple of 6"):
        synthetic_images.recipe(tmp_path, machine=Machine(devices=3))


def test_too_few_images_for_one_shared_batch_are_refused(tmp_path: Path) -> None:
    from training.data.datamodule import ImageDataModule
    from training.fit.trainer import begin

    recipe = synthetic_images.recipe(synthetic_images.image_folder(tmp_path / "colours", 4), batch_size=32)
    _, images = begin(recipe, Run(tmp_path / "run"))
    shared = ImageDataModule(replace(recipe, machine=Machine(devices=2)), images.manifest, tmp_path / "cache")
    shared.setup("fit")
    with pytest.raises(BundleError, match="less than one batch"):
        shared.train_dataloader()


def test_more_processes_than_gpus_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(BundleError, match="has 1 GPUs"):
        distributed.trainer_settings(synthetic_images.recipe(tmp_path, machine=Machine(devices=2)))
