"""Classify the images of a folder or bucket on a cluster of machines, by Ray, into a folder of Parquet parts.

The same command continues where the last run ended: images with a row in a part are skipped.
"""

import argparse
import json
import logging
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from visionserve.cli import exit_codes, options
from visionserve.cli.exit_codes import Stop
from visionserve.cli.resumable_table import columns, printable_bytes

_TOP_K = 5
_PART_ROWS = 2000  # some ten seconds of a core: what an interruption costs each worker at most
_LOCAL = "local"
_STEP_S = 30.0  # between two lines of progress without a terminal


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("source", metavar="ADDRESS", help="a folder that all machines see, s3://BUCKET/PATH, ...")
    parser.add_argument(
        "--model",
        type=options.path,
        required=True,
        metavar="BUNDLE",
        help="a bundle's folder or an archive (.mar), here",
    )
    parser.add_argument("--output", required=True, metavar="ADDRESS", help="a folder of Parquet parts, continued")
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help=f"a Ray cluster (auto: the one that this machine is part of); default: RAY_ADDRESS, else {_LOCAL}: "
        "the cores and GPUs of this machine",
    )
    parser.add_argument("--top-k", type=options.count, metavar="K", help="labels per image (5, or all if fewer)")
    parser.add_argument(
        "--workers", type=options.count, metavar="N", help="processes at most (as many as the cluster has cores)"
    )
    parser.add_argument(
        "--part-rows", type=options.count, default=_PART_ROWS, metavar="N", help=f"images a part ({_PART_ROWS})"
    )


def run(args: argparse.Namespace) -> int:
    """Classify what has no row yet; return the exit code."""
    ray = _ray()
    # Torch and an engine take seconds to import, and `--help` needs neither.
    from visionserve.cli import local
    from visionserve.cli.bulk import parts
    from visionserve.cli.bulk.storage import Storage

    with local.opened(args.model) as directory:
        card = local.card(directory)
        files = {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}
    top_k = args.top_k or min(_TOP_K, len(card.labels))
    if top_k > len(card.labels):
        raise Stop(f"--top-k must be from 1 to {len(card.labels)}, the labels of this model.")
    source, output = Storage.open(args.source), Storage.open(args.output)
    try:
        names = sorted(source.images(_report))
        if not names:
            raise Stop(f"{args.source} contains no image files, or does not exist.")
        identity = parts.Identity(args.source, f"{card.name} {card.version}", parts.digest(files), columns(top_k))
        parts.claim(output, args.output, identity)
        done = parts.images(output)
    except OSError as error:
        raise Stop(f"{args.source} or {args.output} cannot be used: {error}.") from error
    new = [name for name in names if printable_bytes(name) not in done]
    errors: Counter[str] = Counter()
    try:
        if new:
            with _cluster(ray, args.cluster), _progress(len(names), len(names) - len(new)) as bar:
                for images, block_errors in _classified(ray, args, files, card.device, new, top_k):
                    errors.update(block_errors)
                    bar.update(images)
    finally:
        _report(_summary(errors, len(names) - len(new), args.output))
    return exit_codes.OK


def _ray() -> Any:
    # Ray reports its use to its makers unless this says no; its workers have the lowest priority unless this does.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise Stop(
            f"visionserve bulk: the package {error.name} is not installed: pip install 'visionserve[bulk]', in a "
            "checkout pip install --editable '.[bulk]'."
        ) from error
    return ray


@contextmanager
def _cluster(ray: Any, address: str | None) -> Iterator[None]:
    """Join a cluster, or start one of this machine's cores for the time."""
    address = address or os.environ.get("RAY_ADDRESS") or _LOCAL
    alone: dict[str, Any] = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"} if address == _LOCAL else {}
    terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="warning", **alone)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise Stop(f"The Ray cluster {address} cannot be joined: {error}.", exit_codes.UNREACHABLE) from error
    signal.signal(signal.SIGTERM, terminate)  # which Ray replaces
    try:
        yield
    finally:
        ray.shutdown()


def _classified(
    ray: Any, args: argparse.Namespace, files: dict[str, bytes], device: str, names: Sequence[str], top_k: int
) -> Iterator[tuple[int, dict[str, int]]]:
    """Yield how many images each finished part has, and how many of them have which error."""
    from visionserve.cli import local
    from visionserve.cli.bulk import parts
    from visionserve.cli.bulk.worker import Classify

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # they count blocks of each stage; this command counts images
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    bundle = ray.put(files)
    blocks = list(parts.blocks(names, args.part_rows, datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")))
    parallel = min(len(blocks), args.workers or len(blocks))
    dataset = ray.data.from_arrow(blocks).map_batches(
        Classify,
        fn_constructor_args=(_Fetched(bundle), _absolute(args.source), _absolute(args.output), top_k),
        batch_format="pyarrow",
        batch_size=None,  # a block, which becomes a part
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=parallel, max_tasks_in_flight_per_actor=2),
        num_cpus=1,
        num_gpus=1 / local.GPU_WORKERS if device == "cuda" else 0,
    )
    try:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for row in batch.to_pylist():
                yield row["images"], json.loads(row["errors"])
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        raise Stop(f"A worker failed: {cause}. Finished parts are kept, the same command continues.") from error


class _Fetched:
    """Returns an object of Ray's store where it is called."""

    def __init__(self, reference: Any) -> None:
        self._reference = reference

    def __call__(self) -> Any:
        import ray

        return ray.get(self._reference)


def _absolute(address: str) -> str:
    return address if "://" in address else str(Path(address).absolute())


@contextmanager
def _progress(total: int, before: int) -> Iterator[Any]:
    """Yield a bar of images; without a terminal, as a job's log has none, a line now and then."""
    from tqdm import tqdm

    step = 0.1 if sys.stderr.isatty() else _STEP_S
    with tqdm(total=total, initial=before, unit=" images", mininterval=step, file=sys.stderr) as bar:
        yield bar


def _summary(errors: Counter[str], before: int, output: str) -> str:
    listed = {code: count for code, count in errors.most_common() if code}
    text = [f"{errors['']:,} answered"]
    if listed:
        codes = ", ".join(f"{count:,} {code}" for code, count in listed.items())
        text.append(f"{sum(listed.values()):,} without an answer ({codes})")
    if before:
        text.append(f"{before:,} had a row already")
    return "; ".join([*text, f"rows in {output}."])


def _report(text: str) -> None:
    print(text, file=sys.stderr)
