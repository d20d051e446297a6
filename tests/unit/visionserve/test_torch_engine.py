import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.unit.conftest import TinyBundle
from visionserve import engines, network
from visionserve.engines import OnnxEngine, Outputs
from visionserve.errors import BundleError, Unavailable
from visionserve.torch_engine import LADDER, TorchEngine


@pytest.fixture(scope="module")
def folder(tiny: TinyBundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with weights beside its ONNX file, as an archive for a GPU has them."""
    target = tmp_path_factory.mktemp("torch")
    for name in ("card.json", "model.fp32.onnx"):
        shutil.copy(tiny.directory / name, target)
    save_file({name: t.contiguous() for name, t in tiny.network.state_dict().items()}, target / engines.WEIGHTS)
    return target


def difference(one: Outputs, other: Outputs) -> float:
    return max(float(np.abs(getattr(one, name) - getattr(other, name)).max()) for name in engines.OUTPUTS)


def test_it_predicts_what_the_onnx_file_predicts(folder: Path, tiny: TinyBundle) -> None:
    expected = OnnxEngine(folder / "model.fp32.onnx").run(tiny.images)
    assert difference(TorchEngine(folder, "cpu").run(tiny.images), expected) < 1e-4


def test_in_half_precision_it_stays_close(folder: Path, tiny: TinyBundle) -> None:
    expected = OnnxEngine(folder / "model.fp32.onnx").run(tiny.images)
    outputs = TorchEngine(folder, "cpu", dtype=torch.float16).run(tiny.images)
    assert {getattr(outputs, name).dtype for name in engines.OUTPUTS} == {np.dtype(np.float32)}
    assert 0 < difference(outputs, expected) < 0.1


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 12])
def test_a_padded_batch_has_the_shapes_of_its_images(folder: Path, tiny: TinyBundle, count: int) -> None:
    outputs = TorchEngine(folder, "cpu").run(tiny.images[:count])
    assert outputs.logits.shape == (count, 3)
    assert outputs.class_maps.shape == (count, 3, 1, 1)
    assert outputs.embedding.shape == (count, 512)


def test_batch_mates_and_padding_change_no_bit_of_an_images_outputs(folder: Path, tiny: TinyBundle) -> None:
    engine = TorchEngine(folder, "cpu")
    together = engine.run(tiny.images[:8])
    engine.run(255 - tiny.images[:8])  # leaves other pixels in the padding
    some = engine.run(tiny.images[:5])  # padded to 8
    turned = engine.run(tiny.images[7::-1].copy())
    for name in engines.OUTPUTS:
        values = getattr(together, name)
        assert np.array_equal(values[:5], getattr(some, name)), name
        assert np.array_equal(values, getattr(turned, name)[::-1]), name


def test_a_batch_above_the_largest_runs_in_parts(folder: Path, tiny: TinyBundle) -> None:
    parts = TorchEngine(folder, "cpu", largest=5)
    assert parts.largest == 4
    whole = TorchEngine(folder, "cpu").run(tiny.images)
    assert difference(parts.run(tiny.images), whole) < 1e-4


def test_outputs_stay_as_they_are_when_the_engine_runs_again(folder: Path, tiny: TinyBundle) -> None:
    engine = TorchEngine(folder, "cpu")
    first = engine.run(tiny.images[:1])
    before = first.logits.copy()
    engine.run(tiny.images[1:2])
    assert np.array_equal(first.logits, before)


def test_exhausted_memory_is_unavailable_and_halves_the_largest_batch(
    folder: Path, tiny: TinyBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TorchEngine(folder, "cpu", largest=8)
    compute = engine._compute

    def small_gpu(images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(images)

    monkeypatch.setattr(engine, "_compute", small_gpu)
    sizes = []
    for _ in range(2):
        with pytest.raises(Unavailable, match="retry"):
            engine.run(tiny.images[:8])
        sizes.append(engine.largest)
    assert sizes == [4, 2]
    assert len(engine.run(tiny.images[:8]).logits) == 8


def test_weights_of_another_network_are_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "card.json", tmp_path)
    with pytest.raises(BundleError, match="does not fit resnet18"):
        TorchEngine(tmp_path, "cpu")
    save_file(network.build("resnet18", 7).state_dict(), tmp_path / engines.WEIGHTS)
    with pytest.raises(BundleError, match="does not fit resnet18 with 3 labels"):
        TorchEngine(tmp_path, "cpu")


def test_the_runtime_is_chosen_by_name_and_on_cuda_by_itself(folder: Path, tiny: TinyBundle) -> None:
    assert isinstance(engines.load(folder / "model.fp32.onnx", runtime="torch"), TorchEngine)
    assert not isinstance(engines.load(folder / "model.fp32.onnx"), TorchEngine)
    if not torch.cuda.is_available():
        # Refused by torch, not by ONNX Runtime: with weights beside the file `auto` means torch.
        with pytest.raises(BundleError, match="not available to torch"):
            engines.load(folder / "model.fp32.onnx", device="cuda")
        with pytest.raises(BundleError, match="CUDAExecutionProvider"):
            engines.load(tiny.directory / "model.fp32.onnx", device="cuda")


def test_a_batch_is_padded_to_less_than_twice_its_size() -> None:
    assert all(larger == 2 * smaller for smaller, larger in itertools.pairwise(LADDER))


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device: run on one with `make test ARGS='-m gpu'`"
)
def test_graphs_predict_what_the_cpu_predicts(folder: Path, tiny: TinyBundle) -> None:
    on_cpu, on_gpu = TorchEngine(folder, "cpu"), TorchEngine(folder, "cuda")
    for count in (1, 3, 12, 5):
        assert difference(on_gpu.run(tiny.images[:count]), on_cpu.run(tiny.images[:count])) < 0.1
