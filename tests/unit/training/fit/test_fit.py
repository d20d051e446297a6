"""Fitting on drawn images: the same every time, also when it was stopped on the way."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.unit.training import synthetic_images
from tests.unit.training.markers import LIGHTNING
from training import recipe as recipes
from training.data.datamodule import EpochSampler
from training.fit.module import Classification, load_body, make_optimizer, rate
from training.fit.run import Run, read_manifest
from training.fit.trainer import fit, precision
from training.recipe import Data, Optimizer, Stage
from visionserve import network
from visionserve.errors import BundleError

pytestmark = LIGHTNING


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_images.image_folder(tmp_path_factory.mktemp("data") / "colours")


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nobody interrupted."""
    run = Run(tmp_path_factory.mktemp("runs") / "whole")
    fit(synthetic_images.recipe(images), run)
    return run


def test_a_run_leaves_everything_that_bundling_needs(whole: Run, images: Path) -> None:
    assert recipes.load(whole.recipe) == synthetic_images.recipe(images)
    assert read_manifest(whole).labels == ("blue", "green", "red")
    assert {"best.ckpt", "last.ckpt"} <= {path.name for path in whole.checkpoints.iterdir()}
    assert torch.load(whole.checkpoints / "last.ckpt", weights_only=True)["epoch"] == 2
    network.build("shufflenet_v2_x0_5", 3).load_state_dict(load_file(whole.weights))
    assert list(whole.folder.glob("version_*/events*"))


def test_the_options_of_a_usual_notebook_train(images: Path, tmp_path: Path) -> None:
    example = recipes.load(Path("training/recipes/flowers102-adamw.yaml"))
    plain = synthetic_images.recipe(images)
    data = replace(plain.data, shares=example.data.shares)
    optimizer = replace(example.optimizer, head_epochs=0)
    fit(replace(plain, augment=example.augment, optimizer=optimizer, data=data), run := Run(tmp_path / "run"))
    state = torch.load(run.checkpoints / "last.ckpt", weights_only=True)["optimizer_states"][0]["state"]
    assert all("exp_avg_sq" in moments for moments in state.values())
    assert state
    assert read_manifest(run).part("val")


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(whole: Run, images: Path, tmp_path: Path) -> None:
    for seed, same in ((1, True), (2, False)):
        run = Run(tmp_path / str(seed))
        fit(synthetic_images.recipe(images, seed=seed), run)
        assert (run.weights.read_bytes() == whole.weights.read_bytes()) is same


def test_processes_that_augment_give_the_same_weights(images: Path, tmp_path: Path) -> None:
    """Programs of their own: pytest's process has the threads of many libraries, and a fork would copy their locks."""
    weights = []
    for workers in (0, 2):
        recipe, run = synthetic_images.recipe(images), Run(tmp_path / f"workers-{workers}")
        file = tmp_path / f"workers-{workers}.yaml"
        recipes.save(replace(recipe, data=replace(recipe.data, workers=workers)), file)
        command = [sys.executable, "-m", "training", "fit", "-c", str(file), "--run", str(run.folder)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        weights.append(run.weights.read_bytes())
    assert weights[0] == weights[1]


def test_a_killed_run_goes_on_to_the_same_result(
    whole: Run, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path / "killed")
    with monkeypatch.context() as patch:
        patch.setattr(EpochSampler, "set_epoch", _die_in_epoch_2)
        with pytest.raises(SystemExit, match="killed"):
            fit(synthetic_images.recipe(images), run)
    assert not run.weights.exists()
    fit(synthetic_images.recipe(images), run, resume="auto")
    assert run.weights.read_bytes() == whole.weights.read_bytes()


def test_going_on_with_another_division_is_refused(whole: Run, images: Path) -> None:
    data = Data(source="imagefolder", root=str(images), seed=1, cache_side=40, workers=0)
    with pytest.raises(BundleError, match=r"data\.seed"):
        fit(synthetic_images.recipe(images, data=data), whole, resume="auto")


def test_a_checkpoint_that_is_not_there_is_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"none\.ckpt does not exist"):
        fit(synthetic_images.recipe(images), Run(tmp_path), resume=str(tmp_path / "none.ckpt"))


def test_a_fast_run_tries_everything_and_keeps_nothing(images: Path, tmp_path: Path) -> None:
    fit(synthetic_images.recipe(images), Run(tmp_path), fast=True)
    assert not (tmp_path / "checkpoints").exists()


def test_frozen_parts_stay_as_they_were(images: Path, tmp_path: Path) -> None:
    start = network.build("resnet18", 3).state_dict()
    weights = {name: tensor.clone() for name, tensor in start.items() if not name.startswith("fc.")}
    save_file(weights, tmp_path / "start.safetensors")
    recipe = synthetic_images.recipe(
        images,
        architecture="resnet18",
        init=str(tmp_path / "start.safetensors"),
        epochs=1,
        stages=(Stage(1.0, 24, ("conv1", "bn1", "layer1")),),
    )
    fit(recipe, Run(tmp_path / "run"))
    after, before = load_file(tmp_path / "run" / "weights.safetensors"), network.adapt_imagenet(weights)
    frozen = [n for n in before if n.startswith(("conv1", "bn1", "layer1")) and not n.endswith("num_batches_tracked")]
    assert all(torch.equal(after[name], before[name]) for name in frozen)
    assert not torch.equal(after["layer4.1.conv2.weight"], before["layer4.1.conv2.weight"])


def test_only_the_head_learns_in_its_epochs(images: Path) -> None:
    module = Classification(
        synthetic_images.recipe(images, optimizer=Optimizer(head_epochs=1), stages=(Stage(1.0, 24),)), 3
    )
    module.on_train_epoch_start()
    assert {name for name, p in module.network.named_parameters() if p.requires_grad} == {"fc.weight", "fc.bias"}


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(BundleError, match="do not fit"):
        load_body(network.build("resnet18", 3), network.build("resnet34", 3).state_dict())


def test_published_weights_that_are_not_there_are_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not exist"):
        fit(synthetic_images.recipe(images, init=str(tmp_path / "none.safetensors")), Run(tmp_path))


def test_the_rate_rises_and_then_falls_to_nothing() -> None:
    rates = [rate(progress / 20, Optimizer(warmup=0.2)) for progress in range(21)]
    assert max(rates) == rates[4] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.0)
    assert sorted(rates[:5]) == rates[:5]
    assert sorted(rates[4:], reverse=True) == rates[4:]


def test_the_rate_of_the_other_schedules_stays_or_falls_in_steps() -> None:
    constant, step = (Optimizer(warmup=0.1, schedule=name, factor=0.5) for name in ("constant", "step"))
    assert [rate(progress, constant) for progress in (0.05, 0.1, 0.5, 1.0)] == [0.5, 1.0, 1.0, 1.0]
    assert [rate(progress, step) for progress in (0.05, 0.2, 0.4, 0.7, 1.0)] == [0.5, 1.0, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_an_optimizers_first_step_is_the_one_of_its_paper(name: str) -> None:
    """SGD follows the gradient's size, Adam its sign; AdamW's decay does not enter the gradient."""
    settings = Optimizer(name=name, learning_rate=0.01, momentum=0, weight_decay=0.1)  # type: ignore[arg-type]
    weight = torch.nn.Parameter(torch.tensor([[2.0, -2.0]]))
    optimizer = make_optimizer(settings, [{"params": [weight], "lr": 0.01, "weight_decay": 0.1}])
    weight.grad = torch.tensor([[3.0, 1.0]])
    optimizer.step()
    expected = {
        "sgd": [2 - 0.01 * 3.2, -2 - 0.01 * 0.8],
        "adam": [2 - 0.01, -2 - 0.01],
        "adamw": [2 * 0.999 - 0.01, -2 * 0.999 - 0.01],
    }
    assert weight[0].tolist() == pytest.approx(expected[name], abs=1e-6)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"learning_rate": 0}, "learning_rate is above 0"),
        ({"momentum": 1.0}, "below 1"),
        ({"factor": 0.0}, "factor above 0"),
    ],
)
def test_an_optimizer_that_cannot_learn_is_refused(entries: dict[str, float], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        Optimizer(**entries)  # type: ignore[arg-type]


def test_a_machine_without_bf16_trains_in_fp32_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert precision("auto") == "32-true"
    assert "fp32" in caplog.text
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert precision("auto") == "bf16-mixed"


def _die_in_epoch_2(sampler: EpochSampler, epoch: int) -> None:
    if epoch == 2:
        raise SystemExit("killed")
    sampler._epoch = epoch
