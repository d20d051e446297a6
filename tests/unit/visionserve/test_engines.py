import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from tests.unit.conftest import TinyBundle
from visionserve import engines, network
from visionserve.engines import OnnxEngine, OpenVinoEngine, Runtime
from visionserve.errors import BundleError

RUNTIMES: list[Runtime] = ["openvino", "onnxruntime"]


def eager_logits(tiny: TinyBundle) -> np.ndarray:
    form = network.ExportForm(tiny.network, network.MEAN, network.STD).eval()
    with torch.no_grad():
        logits: np.ndarray = form(torch.from_numpy(tiny.images))[0].numpy()
    return logits


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_exported_network_answers_as_the_eager_one(tiny: TinyBundle, runtime: Runtime) -> None:
    outputs = engines.load(tiny.directory / "model.fp32.onnx", runtime=runtime).run(tiny.images)
    np.testing.assert_allclose(outputs.logits, eager_logits(tiny), atol=1e-4)
    np.testing.assert_allclose(outputs.class_maps.mean((2, 3)), outputs.logits, atol=1e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_quantized_network_stays_close_to_the_eager_one(tiny: TinyBundle, runtime: Runtime) -> None:
    expected = eager_logits(tiny)
    logits = engines.load(tiny.directory / "model.int8.onnx", runtime=runtime).run(tiny.images).logits
    assert np.abs(logits - expected).max() < 0.1 * np.ptp(expected)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("form", ["fp32", "int8"])
def test_an_images_outputs_do_not_depend_on_its_batch(tiny: TinyBundle, form: str, runtime: Runtime) -> None:
    engine = engines.load(tiny.directory / f"model.{form}.onnx", runtime=runtime)
    together = engine.run(tiny.images[::-1].copy())
    for index, image in enumerate(tiny.images[::-1]):
        alone = engine.run(image[None])
        for name in engines.OUTPUTS:
            assert np.array_equal(getattr(alone, name)[0], getattr(together, name)[index]), name


@pytest.mark.parametrize("form", ["fp32", "int8"])
def test_networks_compiled_for_a_batch_size_answer_as_the_one_for_any_size(tiny: TinyBundle, form: str) -> None:
    engine = engines.load(tiny.directory / f"model.{form}.onnx", runtime="openvino")
    images = tiny.images  # more than any size that has a network of its own
    together = engine.run(images)
    for size in (1, 2, 3, 4, 8):
        alone = engine.run(images[:size])
        for name in engines.OUTPUTS:
            assert np.array_equal(getattr(alone, name), getattr(together, name)[:size]), (size, name)


def test_the_int8_network_takes_the_pixels_as_they_are(tiny: TinyBundle) -> None:
    graph = onnx.load(tiny.directory / "model.int8.onnx").graph
    assert [entry.name for entry in graph.input] == ["images"]
    assert not [node for node in graph.node if node.op_type == "QuantizeLinear" and "images" in node.input]
    first = next(node for node in graph.node if "images" in node.input)
    assert first.op_type == "DequantizeLinear"


def test_the_int8_weights_keep_to_seven_bits(tiny: TinyBundle) -> None:
    graph = onnx.load(tiny.directory / "model.int8.onnx").graph
    weights = [onnx.numpy_helper.to_array(entry) for entry in graph.initializer if len(entry.dims) == 4]
    quantized = [values for values in weights if values.dtype == np.int8]
    assert len(quantized) == 20
    assert max(np.abs(values.astype(int)).max() for values in quantized) <= 64


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_missing_file_is_a_bundle_error(tmp_path: Path, runtime: Runtime) -> None:
    with pytest.raises(BundleError, match="cannot load"):
        engines.load(tmp_path / "model.onnx", runtime=runtime)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_engine_may_be_used_by_many_threads(tiny: TinyBundle, runtime: Runtime) -> None:
    engine = engines.load(tiny.directory / "model.int8.onnx", runtime=runtime)
    expected = engine.run(tiny.images).logits
    with ThreadPoolExecutor(4) as pool:
        logits_of_all = list(pool.map(lambda _: engine.run(tiny.images).logits, range(16)))
    assert all(np.array_equal(logits, expected) for logits in logits_of_all)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_outputs_stay_as_they_are_when_the_engine_runs_again(tiny: TinyBundle, runtime: Runtime) -> None:
    engine = engines.load(tiny.directory / "model.int8.onnx", runtime=runtime)
    first = engine.run(tiny.images[:1])
    logits = first.logits.copy()
    engine.run(tiny.images[1:2])
    assert np.array_equal(first.logits, logits)


def test_the_default_engine_is_openvino_where_it_is_installed(
    tiny: TinyBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tiny.directory / "model.int8.onnx"
    assert isinstance(engines.load(file), OpenVinoEngine)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert isinstance(engines.load(file), OnnxEngine)


def test_an_unknown_runtime_is_refused(tiny: TinyBundle) -> None:
    with pytest.raises(BundleError, match="runtime must be"):
        engines.load(tiny.directory / "model.int8.onnx", runtime="tensorflow")  # type: ignore[arg-type]


def test_openvino_is_not_asked_for_a_gpu(tiny: TinyBundle) -> None:
    with pytest.raises(BundleError, match="not on cuda"):
        engines.load(tiny.directory / "model.int8.onnx", device="cuda", runtime="openvino")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_network_of_another_make_is_refused(tmp_path: Path, runtime: Runtime) -> None:
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    types = ([value("x", 1, [1])], [value("y", 1, [1])])
    model = onnx.helper.make_model(
        onnx.helper.make_graph([node], "other", *types), opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10
    )
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(BundleError, match="must map images to"):
        engines.load(tmp_path / "other.onnx", runtime=runtime)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here: run -m gpu instead")
def test_a_gpu_that_is_not_there_is_refused_rather_than_replaced_by_the_cpu(tiny: TinyBundle) -> None:
    with pytest.raises(BundleError, match="CUDA"):
        OnnxEngine(tiny.directory / "model.fp32.onnx", device="cuda")


def test_tensorrt_is_refused_where_it_cannot_run(tiny: TinyBundle) -> None:
    path = tiny.directory / "model.fp32.onnx"
    with pytest.raises(BundleError, match="TensorRT computes on a GPU, not on the cpu"):
        engines.load(path, runtime="tensorrt")
    if torch.cuda.is_available():
        pytest.skip("needs a machine without CUDA: run it there with `make test`")
    with pytest.raises(BundleError, match="TensorrtExecutionProvider"):
        engines.load(path, "cuda", runtime="tensorrt")


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device: run on one with `make test ARGS='-m gpu'`"
)
def test_a_gpu_answers_as_the_cpu_does(tiny: TinyBundle) -> None:
    on_cpu = OnnxEngine(tiny.directory / "model.fp32.onnx").run(tiny.images)
    on_gpu = OnnxEngine(tiny.directory / "model.fp32.onnx", device="cuda").run(tiny.images)
    np.testing.assert_allclose(on_gpu.logits, on_cpu.logits, atol=1e-2)


# Run in a process of its own, for what is imported here stays imported.
TELLTALE = """
import sys
from pathlib import Path

def note(event, arguments):
    if event in ("os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect", "socket.getaddrinfo"):
        print(event, arguments)

sys.addaudithook(note)
from visionserve import engines
print(engines.load(Path(sys.argv[1]), runtime=sys.argv[2]).name)
"""


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_engine_starts_nothing_calls_nobody_and_leaves_nothing_at_home(
    tiny: TinyBundle, tmp_path: Path, runtime: Runtime
) -> None:
    command = [sys.executable, "-c", TELLTALE, str(tiny.directory / "model.int8.onnx"), runtime]
    # Nothing of this process: what switches telemetry off here, as a CI's variables do, would switch it off there too.
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert len(done.stdout.splitlines()) == 1, done.stdout
    assert list(tmp_path.iterdir()) == []


UNCHANGED = """
import os, sys
environment, modules = dict(os.environ), set(sys.modules)
import visionserve.client, visionserve.files
assert dict(os.environ) == environment, set(os.environ) - set(environment)
changed = {name for name in sys.modules if sys.modules[name] is None or "telemetry" in name}
assert not changed, changed
"""


def test_importing_the_client_changes_nothing_in_the_process() -> None:
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", UNCHANGED], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_runtime_that_is_not_used_is_not_imported(tiny: TinyBundle) -> None:
    code = "import sys; from pathlib import Path; from visionserve import engines; engines.load(Path(sys.argv[1]))"
    command = [
        sys.executable,
        "-c",
        f"{code}; assert 'onnxruntime' not in sys.modules",
        str(tiny.directory / "model.int8.onnx"),
    ]
    subprocess.run(command, check=True, timeout=120)


QUANTIZER = """
import sys
events = []
sys.addaudithook(lambda event, _: events.append(event) if event in ("socket.connect", "os.fork") else None)
from training.export import quantize
import os
assert "onnxruntime" in sys.modules and os.environ["ORT_DISABLE_TELEMETRY"] == "1" and not events, events
"""


def test_the_quantizer_disables_telemetry_before_it_imports_the_runtime(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", QUANTIZER], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
