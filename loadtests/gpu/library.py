"""Parts in process: environment, engine images/s by batch size, decode images/s, agreement with the fp32 network."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from loadtests import machine
from loadtests.gpu.job import Job, Results, run_part
from loadtests.load.images import read_images
from visionserve import engines, network, transforms
from visionserve.engines import Engine, Runtime
from visionserve.errors import BundleError
from visionserve.images import Limits, plain_jpeg
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard
from visionserve.nvjpeg import MAX_PIXELS, JpegDecoder
from visionserve.torch_engine import TorchEngine
from visionserve.transforms import Preprocessing

_RUNTIMES: dict[str, tuple[Runtime, ...]] = {
    "cuda": ("torch", "onnxruntime", "tensorrt"),
    "cpu": ("openvino", "onnxruntime", "torch"),
}
_BATCHES, _QUICK_BATCHES = (1, 8, 32, 64, 128, 256, 512), (1, 8)
_MATRIX, _QUICK_MATRIX = 8192, 1024
_NVJPEG_BATCHES = (1, 32)


def environment(job: Job, results: Results) -> None:
    """Record what the machine is."""
    facts = machine.gather()
    results.add("processor", f"{facts['processor']}, {facts['usable_cores']} cores, {facts['memory_gb']:g} GB")
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    results.add("software", f"Python {facts['python']}, {versions}, CUDA {torch.version.cuda}")
    results.add("date and revision", f"{facts['date']}, {facts['revision']}, load {facts['load_before']:g} before")
    if job.device == "cuda":
        gpu = torch.cuda.get_device_properties(0)
        driver = machine.nvidia_smi("driver_version")
        results.add("GPU", f"{gpu.name}, {gpu.total_memory / 1e9:.0f} GB, driver {driver or 'unknown'}")
    else:
        results.add("GPU", "none: a rehearsal on the CPU")


def engine(job: Job, results: Results) -> None:
    """Measure each engine of the device at each batch size, copies to and from the device included."""
    card = ModelCard.load(Path(job.bundle, CARD))
    peak = _matrix_flops(job)
    results.add(f"matrix product, {_precision(job)}", f"{peak / 1e12:.2f} TFLOP/s", flops=peak)
    work = _image_flops(job, card)
    results.add("work per image", f"{work / 1e9:.2f} GFLOP at {card.input.size} pixels", flops=work)
    seconds = 0.3 if job.quick else 1.5
    rng = np.random.default_rng(0)
    for runtime, built in _engines(job, results):
        for batch in _QUICK_BATCHES if job.quick else _BATCHES:
            if not results.has_time(2 * seconds + 2, f"{runtime}, batch {batch}"):
                continue
            images = rng.integers(0, 256, (batch, card.input.size, card.input.size, 3), np.uint8)
            built.run(images)
            rate = batch / _seconds_per_call(partial(built.run, images), seconds)
            share = rate * work / peak if job.device == "cuda" else None  # int8 does not compare with float32
            value = f"{rate:,.0f} images/s, {1000 * batch / rate:.2f} ms a batch"
            value += f", {share:.0%} of the matrix product" if share is not None else ""
            results.add(f"{built.name} on {built.device}, batch {batch}", value, images_per_s=rate, share=share)


def decode(job: Job, results: Results) -> None:
    """Measure decode, crop and resize of the images: in one process, one per core, and by nvJPEG."""
    card = ModelCard.load(Path(job.bundle, CARD))
    bodies = [image.body for image in read_images(Path(job.images))]
    kilobytes = sum(map(len, bodies)) / len(bodies) / 1000
    seconds = 0.5 if job.quick else 4.0
    for processes in dict.fromkeys((1, machine.usable_cores())):
        if results.has_time(seconds + 10, f"decode in {processes} processes"):
            rate = _decode_in_processes(bodies, card, seconds, processes)
            value = f"{rate:,.0f} images/s of {kilobytes:.0f} KB"
            results.add(
                f"CPU decode and resize, {processes} process{'es'[: 2 * (processes > 1)]}", value, images_per_s=rate
            )
    _nvjpeg(job, bodies, card, results, seconds)


def agreement(job: Job, results: Results) -> None:
    """Compare the device's engines with the fp32 network on the CPU, on the same decoded images."""
    card = ModelCard.load(Path(job.bundle, CARD))
    images = read_images(Path(job.images), at_most=12 if job.quick else 512)
    preprocessing = Preprocessing(card.input.size, card.input.crop)
    pixels = np.stack([transforms.load(image.body, preprocessing) for image in images])
    reference = _probabilities(TorchEngine(Path(job.bundle), "cpu", _threads(job)), pixels, card)
    kind = "synthetic images: labels mean little" if job.synthetic else "images"
    for runtime, built in _engines(job, results):
        if job.device == "cpu" and runtime == "torch":
            continue  # the reference itself
        probabilities = _probabilities(built, pixels, card)
        same = float(np.mean(probabilities.argmax(1) == reference.argmax(1)))
        largest = float(np.abs(probabilities - reference).max())
        value = f"{same:.2%} the same label, probabilities differ by at most {largest:.4f}"
        results.add(
            f"{built.name} on {built.device} against fp32 on the CPU, {len(images)} {kind}",
            value,
            same_label=same,
            largest_difference=largest,
        )
    _nvjpeg_agreement(job, [image.body for image in images], pixels, reference, results)


def _engines(job: Job, results: Results) -> Iterator[tuple[Runtime, Engine]]:
    """Yield the engines that this machine has; of the others it is said why not."""
    for runtime in _RUNTIMES[job.device]:
        # ONNX files in half precision are in archives only, weights in bundles.
        folder = (
            Path(job.unpacked) if job.unpacked and runtime != "torch" and job.device == "cuda" else Path(job.bundle)
        )
        try:
            card = ModelCard.load(folder / CARD)
            threads = _threads(job) if job.device == "cpu" else 1
            yield runtime, engines.load(folder / card.model, job.device, threads, runtime=runtime)
        except (BundleError, ImportError, OSError) as error:
            results.leave_out(f"engine {runtime} on {job.device}: {error}")


def _probabilities(engine_: Engine, pixels: np.ndarray, card: ModelCard) -> np.ndarray:
    """Return calibrated probabilities (N, C)."""
    logits = np.concatenate([engine_.run(pixels[i : i + 32]).logits for i in range(0, len(pixels), 32)])
    powers = np.exp((logits - logits.max(1, keepdims=True)) / card.temperature)
    return cast(np.ndarray, powers / powers.sum(1, keepdims=True))


def _threads(job: Job) -> int:
    # Threads that wait for each other on a busy machine are slower than one; a rehearsal may run on such.
    return 1 if job.quick else machine.usable_cores()


def _precision(job: Job) -> str:
    return "float16" if job.device == "cuda" else "float32"


def _matrix_flops(job: Job) -> float:
    """Return the operations per second of a large matrix product: what the device can multiply."""
    size = _QUICK_MATRIX if job.quick else _MATRIX if job.device == "cuda" else 2 * _QUICK_MATRIX
    matrix = torch.randn(size, size, device=job.device, dtype=getattr(torch, _precision(job)))

    def product() -> None:
        torch.mm(matrix, matrix)
        if job.device == "cuda":
            torch.cuda.synchronize()

    product()
    return float(2 * size**3 / _seconds_per_call(product, 0.3 if job.quick else 1.0))


def _image_flops(job: Job, card: ModelCard) -> float:
    """Return the operations of the network for one image; a multiplication and an addition are two."""
    net = network.load(card.architecture, len(card.labels), Path(job.bundle, engines.WEIGHTS))
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        net(torch.zeros(1, 3, card.input.size, card.input.size))
    return float(counter.get_total_flops())


def _decode_in_processes(bodies: list[bytes], card: ModelCard, seconds: float, processes: int) -> float:
    context = multiprocessing.get_context(
        "fork"
    )  # nothing has used a thread or the GPU yet; importing torch takes long
    barrier = context.Barrier(processes)
    with context.Pool(processes, _remember, (barrier,)) as pool:
        arguments = [(bodies, card.input.size, card.input.crop, seconds)] * processes
        return sum(pool.starmap(_decode_rate, arguments, chunksize=1))


def _remember(barrier: object) -> None:
    _decode_rate.barrier = barrier  # type: ignore[attr-defined]


def _decode_rate(bodies: list[bytes], size: int, crop: float, seconds: float) -> float:
    """Return images/s of one process, in step with the others."""
    torch.set_num_threads(1)
    preprocessing = Preprocessing(size, crop)
    transforms.load(bodies[0], preprocessing)
    _decode_rate.barrier.wait(120)  # type: ignore[attr-defined]
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        transforms.load(bodies[count % len(bodies)], preprocessing)
        count += 1
    return count / (time.perf_counter() - start)


def _nvjpeg(job: Job, bodies: list[bytes], card: ModelCard, results: Results, seconds: float) -> None:
    """Measure what workers do with `decoder: nvjpeg`, for batches of one image and of many."""
    decoder = _nvjpeg_decoder(job, card)
    sample = next((body for body in bodies if plain_jpeg(body, Limits(), MAX_PIXELS) is not None), None)
    if sample is None:
        results.leave_out(f"{_nvjpeg_name(job)}: none of the images is a plain JPEG")
        return
    for size in _NVJPEG_BATCHES:
        name = f"{_nvjpeg_name(job)}: decode and resize, one process, batches of {size}"
        if not results.has_time(seconds + 5, name):
            continue
        batch = [bodies[i % len(bodies)] for i in range(size)]
        try:
            decoder.check(sample)
            plain = sum(pixels is not None for pixels in decoder(batch))
            rate = plain / _seconds_per_call(partial(decoder, batch), seconds)
            left = f"; {size - plain} of {size} images are left to the CPU" if plain < size else ""
            results.add(name, f"{rate:,.0f} images/s{left}", images_per_s=rate)
        except (RuntimeError, BundleError) as error:
            results.leave_out(f"{name}: {str(error).splitlines()[0]}")


def _nvjpeg_decoder(job: Job, card: ModelCard) -> JpegDecoder:
    return JpegDecoder(Preprocessing(card.input.size, card.input.crop), Limits(), torch.device(job.device))


def _nvjpeg_name(job: Job) -> str:
    return "nvJPEG" if job.device == "cuda" else "nvJPEG's path with the CPU's decoder in its place"


def _nvjpeg_agreement(
    job: Job, bodies: list[bytes], pixels: np.ndarray, reference: np.ndarray, results: Results
) -> None:
    """Compare the labels of images that nvJPEG decodes with those of the CPU's decode, by the same network."""
    card = ModelCard.load(Path(job.bundle, CARD))
    decoded = _nvjpeg_decoder(job, card)(bodies)
    plain = [index for index, entry in enumerate(decoded) if entry is not None]
    if not plain:
        results.leave_out("agreement of nvJPEG: it decoded none of the images")
        return
    stacked = np.stack([entry for entry in decoded if entry is not None])
    probabilities = _probabilities(TorchEngine(Path(job.bundle), "cpu", _threads(job)), stacked, card)
    same = float(np.mean(probabilities.argmax(1) == reference[plain].argmax(1)))
    levels = float(np.abs(stacked.astype(int) - pixels[plain].astype(int)).mean())
    results.add(
        f"{_nvjpeg_name(job)} against the reference decode, {len(plain)} images",
        f"{same:.2%} the same label (serve with it from 99.50 % on), {levels:.2f} of 255 levels apart",
        same_label=same,
        levels=levels,
    )


def _seconds_per_call(call: Callable[[], object], seconds: float) -> float:
    """Return how long a call takes, as the mean over so many seconds, at least three calls."""
    start, count = time.perf_counter(), 0
    while count < 3 or time.perf_counter() - start < seconds:
        call()
        count += 1
    return (time.perf_counter() - start) / count


if __name__ == "__main__":
    run_part({"environment": environment, "engine": engine, "decode": decode, "agreement": agreement})
