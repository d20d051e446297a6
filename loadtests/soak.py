"""`python -m loadtests.soak`: does our service stay as it is over many requests? Memory, latency: a table.

It is started anew, loaded over 32 connections with photographs and some broken bodies, and weighed with all its
processes in between. Exit codes: 0 flat and no fault, 1 not, 2 something is missing or wrong, 3 it did not
serve, 130 interrupted.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.benchmark import client, facts, server, services
from loadtests.benchmark.server import Server, ServerError
from loadtests.load import images
from loadtests.load.workload import Traffic
from loadtests.results import expected_labels
from loadtests.results.expected_labels import CalibrationError

_NOT_FLAT, _SETUP, _FAILED, _INTERRUPTED = 1, 2, 3, 130
_CONNECTIONS, _BROKEN, _WARM_UP_S = 32, 0.01, 0.2
_SIZES = "500x375:0.9,1200x900:0.09,4000x3000:0.01"
# Allocators settle at first, and pages that were touched once more or less are no leak.
ALLOWED_GROWTH = 0.02


@dataclass(frozen=True)
class Weighed:
    """The service after so many requests since its start: memory in MB, p99 in ms, answers that were wrong."""

    requests: int
    memory_mb: float
    images_per_s: float
    p99_ms: float
    faults: int


def main(arguments: list[str] | None = None) -> int:
    """Run the test, print the table and the verdict."""
    options = _parser().parse_args(arguments)
    if not options.archive.is_file():
        print(f"{options.archive} is missing: `make archive` builds it", file=sys.stderr)
        return _SETUP
    try:
        found = run(options.archive.resolve(), options.photos, options.requests, options.every, _say)
    except ValueError as error:
        print(error, file=sys.stderr)
        return _SETUP
    except (ServerError, CalibrationError) as error:
        print(error, file=sys.stderr)
        return _FAILED
    except KeyboardInterrupt:
        print("\nInterrupted: the lines above are what was measured.", file=sys.stderr)
        return _INTERRUPTED
    print(f"{table(found)}\n\n{verdict(found)} {facts.sentence(facts.gather())}")
    return 0 if growth(found) <= ALLOWED_GROWTH and not any(entry.faults for entry in found) else _NOT_FLAT


def run(archive: Path, photos: Path | None, requests: int, every_s: float, say: Callable[[str], None]) -> list[Weighed]:
    """Load a service until it has had so many requests; weigh it every few seconds.

    Raises:
        ValueError: no photographs, or nothing to measure.
        ServerError, CalibrationError: it did not start, or does not answer every photograph.
    """
    if requests < 1 or every_s <= 0:
        raise ValueError("--requests and --every must be positive")
    chosen = images.read(photos) if photos else images.drawn(images.parse_sizes(_SIZES))
    with tempfile.TemporaryDirectory(prefix="visionserve-endurance-") as name:
        folder = Path(name)
        (folder / "store").mkdir()
        (folder / "store" / archive.name).symlink_to(archive)
        launch = services.our_launch(folder / "store", archive.stem)
        with server.running(launch, folder / "log.txt") as service:
            service.first_answer(chosen[0].body)
            labels = dict(expected_labels.calibrate(service.target, chosen).labels)
            traffic = Traffic(chosen, labels, _BROKEN)
            return _weigh(service, traffic, requests, every_s, say)


def _weigh(
    service: Server, traffic: Traffic, requests: int, every_s: float, say: Callable[[str], None]
) -> list[Weighed]:
    found: list[Weighed] = []
    done = 0
    while done < requests:
        window = client.measure(service.target, traffic, _CONNECTIONS, _WARM_UP_S, every_s, service.cpu_s).summary()
        answered = int(window["images"] + window["refused"])
        if not answered:
            raise ServerError(f"no answer in {every_s:g} s:\n{service.log_tail()}")
        done += answered
        entry = Weighed(done, service.memory_mb(), window["images_per_s"], window["p99_ms"], int(window["faults"]))
        found.append(entry)
        say(f"{done:,} of {requests:,}: {entry.memory_mb:,.0f} MB, p99 {entry.p99_ms:.0f} ms, {entry.faults} faults")
    return found


def growth(found: Sequence[Weighed]) -> float:
    """Return how much memory the last quarter has above the second, as a share; 0 with fewer than four weighings."""
    quarter = len(found) // 4
    if not quarter:
        return 0.0
    second, last = found[quarter : 2 * quarter], found[-quarter:]
    return statistics.median(e.memory_mb for e in last) / statistics.median(e.memory_mb for e in second) - 1


def table(found: Sequence[Weighed], rows: int = 10) -> str:
    """Return some ten of the weighings as Markdown, the first and the last among them."""
    places = sorted({round(place * (len(found) - 1) / max(1, rows - 1)) for place in range(rows)})
    lines = [
        f"| {e.requests:,} | {e.memory_mb:,.0f} | {e.images_per_s:.0f} | {e.p99_ms:.0f} | {e.faults} |"
        for e in (found[place] for place in places)
    ]
    return "\n".join(["| requests | memory, MB | images/s | p99, ms | faults |", "|---:|---:|---:|---:|---:|", *lines])


def verdict(found: Sequence[Weighed]) -> str:
    """Return what the table says, in a sentence."""
    return (
        f"Memory of the last quarter against the second: {growth(found):+.1%} (allowed {ALLOWED_GROWTH:.0%}); "
        f"{sum(entry.faults for entry in found)} faults."
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.soak", description=(__doc__ or "").split(": ", 1)[1].split("\n\n", 1)[0]
    )
    parser.add_argument("--archive", type=Path, default=Path("model_store/flowers.mar"), help="default: %(default)s")
    parser.add_argument("--photos", type=Path, help=f"a folder of photographs; default: drawn ones, {_SIZES}")
    parser.add_argument("--requests", type=int, default=100_000, help="at least so many (%(default)s)")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two weighings (%(default)s)")
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
