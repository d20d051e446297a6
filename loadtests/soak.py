"""`python -m loadtests soak`: load visionserve with many requests and check that its memory stays constant.

It is started, loaded over 32 connections with images and some invalid bodies, and the memory of all its processes is
measured every few seconds. Latency is reported, not judged: on a shared machine it varies by itself. Exit codes: 0
constant and no fault, 1 not, or too few samples to say so, 2 something is missing or wrong, 3 it did not
serve, 130 interrupted.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests import machine
from loadtests.benchmark import client, server, services
from loadtests.benchmark.server import Server, ServerError
from loadtests.load.images import parse_sizes, read_images, synthetic_images
from loadtests.load.workload import Workload
from loadtests.results.validation import CalibrationError, calibrate

_NOT_CONSTANT, _SETUP, _FAILED, _INTERRUPTED = 1, 2, 3, 130
_CONNECTIONS, _INVALID_SHARE, _WARM_UP_S = 32, 0.01, 0.2
_LONGEST_WINDOW_S = 30.0
_SIZES = "500x375:0.9,1200x900:0.09,4000x3000:0.01"
# Allocators settle at first, and a few pages more or less are not a leak.
ALLOWED_GROWTH = 0.02
_FEWEST = 4  # samples: a second and a last quarter


@dataclass(frozen=True)
class Sample:
    """The service after ``requests`` since its start: memory in MB, p99 in ms, answers that were wrong."""

    requests: int
    memory_mb: float
    images_per_s: float
    p99_ms: float
    faults: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `soak`."""
    parser.add_argument("--archive", type=Path, default=Path("model_store/flowers.mar"), help="default: %(default)s")
    parser.add_argument("--images", type=Path, help=f"a folder of images; default: synthetic ones, {_SIZES}")
    parser.add_argument("--requests", type=int, default=100_000, help="at least this many (%(default)s)")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two samples (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Run the test, print the table and the verdict."""
    if not args.archive.is_file():
        print(f"{args.archive} is missing: `make archive` builds it", file=sys.stderr)
        return _SETUP
    try:
        samples = measure(args.archive.resolve(), args.images, args.requests, args.every, _say)
    except (ServerError, CalibrationError) as error:
        print(error, file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt:
        print("\nInterrupted: the lines above are what was measured.", file=sys.stderr)
        return _INTERRUPTED
    print(f"{table(samples)}\n\n{verdict(samples)} {machine.sentence(machine.gather())}")
    constant = len(samples) >= _FEWEST and growth(samples) <= ALLOWED_GROWTH
    constant = constant and not any(sample.faults for sample in samples)
    return 0 if constant else _NOT_CONSTANT


def measure(
    archive: Path, folder: Path | None, requests: int, every_s: float, say: Callable[[str], None]
) -> list[Sample]:
    """Load a service until it has had so many requests; take a sample every few seconds.

    Raises:
        ValueError: no images, or nothing to measure.
        ServerError, CalibrationError: it did not start, or does not answer every image.
    """
    if requests < 1 or every_s <= 0:
        raise ValueError("--requests and --every must be positive")
    images = read_images(folder) if folder else synthetic_images(parse_sizes(_SIZES))
    with tempfile.TemporaryDirectory(prefix="visionserve-soak-") as name:
        store = Path(name, "store")
        store.mkdir()
        (store / archive.name).symlink_to(archive)
        launch = services.visionserve_launch(store, archive.stem)
        with server.running(launch, Path(name, "log.txt")) as service:
            service.first_answer(images[0].body)
            labels = dict(calibrate(service.target, images).labels)
            return _samples(service, Workload(images, labels, _INVALID_SHARE), requests, every_s, say)


def _samples(
    service: Server, workload: Workload, requests: int, every_s: float, say: Callable[[str], None]
) -> list[Sample]:
    samples: list[Sample] = []
    done, window_s = 0, every_s
    while done < requests:
        window = client.measure(service.target, workload, _CONNECTIONS, _WARM_UP_S, window_s, service.cpu_s).summary()
        if not window["images"]:
            # Connections restart with each window: on a busy machine a short one ends before any answer.
            if window_s >= _LONGEST_WINDOW_S:
                raise ServerError(f"no answer in {window_s:g} s:\n{service.log_tail()}")
            window_s *= 2
            continue
        done += int(window["images"] + window["rejected"])
        sample = Sample(done, service.memory_mb(), window["images_per_s"], window["p99_ms"], int(window["faults"]))
        samples.append(sample)
        say(f"{done:,} of {requests:,}: {sample.memory_mb:,.0f} MB, p99 {sample.p99_ms:.0f} ms, {sample.faults} faults")
    return samples


def growth(samples: Sequence[Sample]) -> float:
    """Return how much more memory the last quarter has than the second, as a share; 0 with fewer than four samples."""
    quarter = len(samples) // 4
    if not quarter:
        return 0.0
    second, last = samples[quarter : 2 * quarter], samples[-quarter:]
    return statistics.median(s.memory_mb for s in last) / statistics.median(s.memory_mb for s in second) - 1


def table(samples: Sequence[Sample], rows: int = 10) -> str:
    """Return about ten of the samples as Markdown, the first and the last among them."""
    indexes = sorted({round(row * (len(samples) - 1) / max(1, rows - 1)) for row in range(rows)})
    lines = [
        f"| {s.requests:,} | {s.memory_mb:,.0f} | {s.images_per_s:.0f} | {s.p99_ms:.0f} | {s.faults} |"
        for s in (samples[index] for index in indexes)
    ]
    return "\n".join(["| requests | memory, MB | images/s | p99, ms | faults |", "|---:|---:|---:|---:|---:|", *lines])


def verdict(samples: Sequence[Sample]) -> str:
    """Return the result in a sentence."""
    faults = f"{sum(sample.faults for sample in samples)} faults."
    if len(samples) < _FEWEST:
        few = f"{len(samples)} samples cannot show whether memory grows: more --requests, or a smaller --every"
        return f"{few}; {faults}"
    grown = f"{growth(samples):+.1%} (allowed {ALLOWED_GROWTH:.0%})"
    return f"Memory of the last quarter against the second: {grown}; {faults}"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
