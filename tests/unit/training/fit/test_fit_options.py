"""Options of the machine and of the step: compiled, clipped, in half precision, tried out."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.unit.training import synthetic_images
from tests.unit.training.learning_curves import curves
from tests.unit.training.markers import LIGHTNING
from training.data import cache
from training.fit.module import compile_network, load_body
from training.fit.run import Run
from training.fit.trainer import fit, precision
from training.recipe import Machine, Optimizer, Stage
from visionserve.errors import BundleError
from visionserve.network import build

pytestmark = LIGHTNING


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_images.image_folder(tmp_path_factory.mktemp("data") / "colours")


class _Small(nn.Module):
    """As little as compiles in seconds and ends in pool-then-linear."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.avgpool, self.fc = nn.Conv2d(3, 8, 5, 4), nn.AdaptiveAvgPool2d(1), nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        pooled: Tensor = self.fc(self.avgpool(self.conv1(images).relu()).flatten(1))
        return pooled


@pytest.mark.slow
def test_a_compiled_run_learns_the_same_under_the_same_names(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.fit.module.build", lambda *_: _Small())
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    # Asking for vector instructions starts an interpreter for each kind.
    monkeypatch.setattr("torch._inductor.config.cpp.vec_isa_ok", False)
    try:
        compile_network(nn.Identity())
    except BundleError as error:
        pytest.skip(str(error))
    runs = {}
    for name, machine in (("eager", Machine()), ("compiled", Machine(compile=True))):
        torch.manual_seed(0)
        runs[name] = Run(tmp_path / name)
        fit(synthetic_images.recipe(images, machine=machine, epochs=2, stages=(Stage(1.0, 24),)), runs[name])
    eager, compiled = (load_file(run.weights) for run in runs.values())
    assert set(compiled) == set(eager) == set(_Small().state_dict())
    expected = {name: pytest.approx(values, rel=1e-4) for name, values in curves(runs["eager"].folder).items()}
    assert curves(runs["compiled"].folder) == expected


def test_a_machine_that_cannot_compile_is_told_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    torch.compiler.reset()
    with (
        config.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}),
        pytest.raises(BundleError, match=r"machine\.compile needs a C\+\+ compiler"),
    ):
        compile_network(nn.Identity())


def test_no_step_is_longer_than_the_clipped_gradient_allows(images: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    moved = {}
    for clip in (0.0, 0.01):
        settings = Optimizer(
            learning_rate=1.0, momentum=0, weight_decay=0, warmup=0, head_epochs=0, average_decay=0, clip=clip
        )
        recipe = synthetic_images.recipe(
            images, optimizer=settings, epochs=1, batch_size=24, stages=(Stage(1.0, 24),), architecture="resnet18"
        )
        with pytest.MonkeyPatch.context() as patch:
            start = _Small()
            before = {name: tensor.clone() for name, tensor in start.named_parameters()}
            patch.setattr("training.fit.module.build", lambda *_, network=start: network)
            fit(recipe, Run(tmp_path / str(clip)))
        changes = [(parameter - before[name]).detach().flatten() for name, parameter in start.named_parameters()]
        moved[clip] = float(torch.cat(changes).norm())
    assert moved[0.0] > 0.02
    assert moved[0.01] == pytest.approx(0.01, rel=1e-3)


def test_half_precision_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BundleError, match="16-mixed needs a GPU"):
        precision("16-mixed")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert precision("16-mixed") == "16-mixed"


def test_a_rehearsal_opens_a_handful_of_images_and_leaves_the_run_alone(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: set[Path] = set()
    read = cache.read

    def counted(path: Path) -> bytes:
        opened.add(path)
        return read(path)

    for module in ("training.data.cache", "training.data.datamodule"):
        monkeypatch.setattr(f"{module}.read", counted)
    run = Run(tmp_path / "run")
    fit(synthetic_images.recipe(images, batch_size=4), run, fast=True, resume="auto")
    assert len(opened) == 8
    assert not run.folder.exists()


def test_going_on_with_another_network_is_refused(images: Path, tmp_path: Path) -> None:
    from training.fit.trainer import begin

    begin(synthetic_images.recipe(images), Run(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(BundleError, match=r"begun with architecture shufflenet_v2_x0_5, not resnet18.*--resume none"):
        fit(synthetic_images.recipe(images, architecture="resnet18"), Run(tmp_path), resume="auto")


def test_a_run_that_failed_before_it_learnt_anything_begins_again_with_other_options(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As where torchvision's weights cannot be downloaded, and the message advises --init FILE."""
    run, missing = Run(tmp_path / "run"), tmp_path / "weights.safetensors"
    missing.write_bytes(b"no weights")
    with pytest.raises(BundleError, match=r"weights\.safetensors is not a safetensors file \(.*weights_only=True"):
        fit(synthetic_images.recipe(images, init=str(missing)), run, resume="auto")
    assert run.manifest.is_file()
    fit(synthetic_images.recipe(images, init="none"), run, resume="auto")
    assert f"no epoch of {run.folder} was finished, so it begins again" in caplog.text
    assert run.finished


def test_weights_of_another_network_are_refused_in_a_sentence() -> None:
    other = build("resnet50", 3).state_dict()
    with pytest.raises(BundleError, match=r"^the weights do not fit the network: size mismatch for .*\.$"):
        load_body(build("resnet18", 3), other)
