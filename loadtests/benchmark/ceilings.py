"""Ceilings: what decode and engine do in process, one process per core and no server: no server can be faster.

The benchmark runs it as a process of its own, because it imports the library (and with it torch).
"""

import argparse
import io
import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from loadtests import machine
from loadtests.load.images import encode_jpeg, read_images, synthetic_image
from loadtests.results.stats import percentile

if TYPE_CHECKING:
    from visionserve.classifier import Classifier

_BATCH = 8
_LARGE = (4000, 3000)
_LARGE_RUNS = 5
# While the client and the server's front end work, the worker's core rests for about this long.
_REST_S = 0.005
_START_S = 600


def measure(archive: Path, image_folder: Path, seconds: float, processes: int) -> dict[str, dict[str, float]]:
    """Return rates, CPU costs and latencies by ceiling.

    ``decode``, ``engine`` and ``decode + engine`` run in all processes at once, ``one at a time`` in one; so does
    ``one after a rest``, because a core that has slept starts with cold caches and a low clock.
    """
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(processes), context.Queue()
    children = [
        context.Process(target=_work, args=(archive, image_folder, seconds, i, barrier, results), daemon=True)
        for i in range(processes)
    ]
    for child in children:
        child.start()
    try:
        # A child that died sends nothing: the time limit ends the waiting.
        measurements = [results.get(timeout=_START_S + 8 * seconds) for _ in children]
        for child in children:
            child.join()
    finally:
        for child in children:
            child.kill()
    first: dict[str, dict[str, float]] = next(entry for entry in measurements if "one at a time" in entry)
    return {
        name: values if name in _ALONE else _sum([entry[name] for entry in measurements])
        for name, values in first.items()
    }


_ALONE = ("one at a time", "one after a rest", "12 megapixels")


def _work(
    archive: Path, image_folder: Path, seconds: float, process: int, barrier: Barrier, results: "Queue[Any]"
) -> None:
    """Measure in one process, in step with the others; the first one measures more, while they wait."""
    from visionserve.classifier import Classifier  # here, so that the parent does not load torch and take three seconds

    classifier = Classifier.load(archive, threads=1)
    bodies = [image.body for image in read_images(image_folder)]
    batch = np.stack([classifier.prepare(body) for body in bodies[:_BATCH]])
    turn = iter(range(process, 1 << 62))

    def decode() -> int:
        classifier.prepare(bodies[next(turn) % len(bodies)])
        return 1

    def engine() -> int:
        classifier.engine.run(batch)
        return len(batch)

    def both(count: int = _BATCH) -> int:
        images = [classifier.prepare(bodies[next(turn) % len(bodies)]) for _ in range(count)]
        classifier.engine.run(np.stack(images))
        return count

    measured = {}
    for name, step in (("decode", decode), ("engine", engine), ("decode + engine", both)):
        step()
        barrier.wait(_START_S)
        measured[name] = _repeat(step, seconds)
    barrier.wait(_START_S)
    if process == 0:
        measured["one at a time"] = _repeat(lambda: both(1), seconds)
        measured["one after a rest"] = _repeat(lambda: both(1), seconds, rest_s=_REST_S)
        measured["12 megapixels"] = _large(classifier)
    results.put(measured)


def _repeat(step: Callable[[], int], seconds: float, rest_s: float = 0) -> dict[str, float]:
    """Call ``step`` repeatedly for ``seconds``, each time after a rest; it returns how many images it processed."""
    images, latencies = 0, []
    cpu, start = time.process_time(), time.perf_counter()
    end = start
    while end - start < seconds:
        if rest_s:
            time.sleep(rest_s)
        begin = time.perf_counter()
        images += step()
        end = time.perf_counter()
        latencies.append((end - begin) * 1000)
    cpu = time.process_time() - cpu
    return {
        "images_per_s": images / (end - start),
        "cpu_s_per_1000": 1000 * cpu / images,
        # Below one, other processes used this core too.
        "cpu_share": cpu / (end - start),
        "p50_ms": percentile(latencies, 0.5),
    }


def _large(classifier: "Classifier") -> dict[str, float]:
    """Compare the decode, resize included, of a 12-megapixel image with Pillow's full decode alone."""
    body = encode_jpeg(synthetic_image(*_LARGE, seed=0))
    product_ms = _median_ms(lambda: classifier.prepare(body))
    pillow_ms = _median_ms(lambda: np.asarray(Image.open(io.BytesIO(body)).convert("RGB")))
    return {"product_ms": product_ms, "pillow_ms": pillow_ms, "ratio": pillow_ms / product_ms}


def _median_ms(call: Callable[[], object]) -> float:
    times = []
    for _ in range(_LARGE_RUNS):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1000)
    return percentile(times, 0.5)


def _sum(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    """Add the processes' rates; their costs and latencies are averaged."""
    return {
        name: sum(part[name] for part in parts) / (1 if name == "images_per_s" else len(parts)) for name in parts[0]
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--archive", type=Path, required=True, help="an unpacked archive, or a bundle")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each ceiling")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    result = measure(args.archive, args.images, args.seconds, machine.usable_cores())
    args.output.write_text(json.dumps(result), encoding="utf-8")
