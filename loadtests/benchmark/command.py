"""`python -m loadtests benchmark`: visionserve beside TorchServe's example, other servers and this machine's limits.

Exit codes: 0 measured, 1 a competitor failed, 2 the command line or the set-up is wrong, 130 interrupted.
"""

import argparse
import json
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from loadtests import machine
from loadtests.benchmark import rounds, table
from loadtests.benchmark.rounds import MeasurementLog, Plan
from loadtests.benchmark.services import PEERS, Service, SetupError, Workspace
from loadtests.load.images import EncodedImage, read_images, synthetic_images

_FAILED, _SETUP, _INTERRUPTED = 1, 2, 130
_FULL = Plan(rounds=5, seconds=5.0, warm_up_s=3.0)
_QUICK = Plan(rounds=3, seconds=2.5, warm_up_s=0.7)
_SIZE = (500, 375)
_COUNT = 24
SETTINGS = "settings.json"
MARKDOWN = "benchmark.md"
JSON = "benchmark.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `benchmark`."""
    parser.add_argument("--bundle", type=Path, default=Path("model_store/flowers"), help="default: %(default)s")
    parser.add_argument("--archive", type=Path, help="default: the bundle's name with .mar")
    parser.add_argument("--images", type=Path, help=f"a folder of images; default: {_COUNT} synthetic ones")
    parser.add_argument("--peers", default="", help=f"also compare with: {','.join(PEERS)}; installs them in --cache")
    parser.add_argument("--quick", action="store_true", help="three short rounds, about 4 minutes instead of 11")
    parser.add_argument("--rounds", type=int, help=f"default: {_FULL.rounds}")
    parser.add_argument("--seconds", type=float, help=f"of each window; default: {_FULL.seconds:g}")
    parser.add_argument("--only", default="", help="some of the competitors, by name: visionserve,torchserve,mosec,...")
    parser.add_argument("--cache", type=Path, default=Path(".cache/benchmark"), help="environments are kept here")
    parser.add_argument("--output", type=Path, help="a folder for the results; default: runs/benchmark/DATE-TIME")
    parser.add_argument("--resume", type=Path, metavar="FOLDER", help="continue an interrupted benchmark")


def run(args: argparse.Namespace) -> int:
    """Run the benchmark and return the exit code."""
    folder = args.resume or args.output or Path("runs/benchmark", datetime.now().strftime("%Y%m%d-%H%M%S"))
    try:
        return _benchmark(args, folder)
    except SetupError as error:
        print(error, file=sys.stderr)
        return _SETUP
    except KeyboardInterrupt:
        print(f"\nInterrupted; finished measurements are kept: continue with --resume {folder}", file=sys.stderr)
        return _INTERRUPTED


def _benchmark(args: argparse.Namespace, folder: Path) -> int:
    if not args.resume and (folder / rounds.FILE_NAME).exists():
        raise ValueError(f"{folder} already holds a benchmark: --resume {folder} continues it")
    folder.mkdir(parents=True, exist_ok=True)
    settings = _settings(args, folder)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="visionserve-benchmark-") as name:
        workspace = _workspace(args, Path(name))
        _say("preparing competitors ...")
        workspace.unpack()
        images, image_folder = _images(args.images, Path(name, "images"))
        plan, services = _plan(args), _services(args, workspace)
        log = MeasurementLog(folder)
        try:
            rounds.run(
                plan,
                services,
                lambda: rounds.measured_ceilings(workspace.unpacked, image_folder, plan.seconds / 2, Path(name)),
                images,
                log,
                _say,
            )
        finally:
            _write(log, settings, folder)
    _say(f"done in {time.monotonic() - started:.0f} s: {folder / MARKDOWN}, {folder / JSON}")
    return _FAILED if any("error" in entry for entry in log.measurements) else 0


def _workspace(args: argparse.Namespace, folder: Path) -> Workspace:
    bundle: Path = args.bundle.resolve()
    archive: Path = args.archive.resolve() if args.archive else bundle.with_name(f"{bundle.name}.mar")
    return Workspace(bundle, archive, args.cache.resolve(), folder)


def _settings(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return the facts and options of the benchmark: those of its first start when it is resumed."""
    path = folder / SETTINGS
    if path.is_file():
        earlier: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return earlier
    options = {name: str(value) for name, value in vars(args).items() if value is not None and name != "run"}
    settings = {"facts": machine.gather(), "options": options}
    if warning := machine.busy_warning(settings["facts"]):
        _say(f"{warning} Disturbed windows will be counted.")
    path.write_text(json.dumps(settings, indent=2), encoding="utf-8")
    return settings


def _plan(args: argparse.Namespace) -> Plan:
    default = _QUICK if args.quick else _FULL
    return Plan(args.rounds or default.rounds, args.seconds or default.seconds, default.warm_up_s)


def _services(args: argparse.Namespace, workspace: Workspace) -> list[Service]:
    peers = [name for name in args.peers.split(",") if name]
    unknown = set(peers) - set(PEERS)
    if unknown:
        raise ValueError(f"unknown peers: {', '.join(sorted(unknown))}; choose from {', '.join(PEERS)}")
    makers = {"visionserve": workspace.visionserve, "torchserve": workspace.torchserve}
    makers |= {name: lambda name=name: workspace.peer(name) for name in peers}
    names = [name for name in args.only.split(",") if name] or list(makers)
    if not set(names) <= set(makers):
        raise ValueError(f"--only takes {', '.join(makers)}; a peer must also be in --peers")
    return [makers[name]() for name in names]


def _images(source: Path | None, folder: Path) -> tuple[list[EncodedImage], Path]:
    """Return the images, and a folder that holds them."""
    if source:
        return read_images(source), source.resolve()
    folder.mkdir()
    images = synthetic_images({_SIZE: 1.0}, _COUNT)
    for image in images:
        (folder / f"{image.name}.jpg").write_bytes(image.body)
    return images, folder


def _write(log: MeasurementLog, settings: dict[str, Any], folder: Path) -> None:
    """Write the results so far: table and JSON."""
    content = {**settings, "measurements": log.measurements}
    (folder / JSON).write_text(json.dumps(content, indent=1), encoding="utf-8")
    images = settings["options"].get("images", f"{_COUNT} synthetic ones of {_SIZE[0]} x {_SIZE[1]}")
    text = table.markdown(log.measurements, settings["facts"], f"Images: {images}")
    (folder / MARKDOWN).write_text(text, encoding="utf-8")
    print("\n" + text, flush=True)


def _say(text: str) -> None:
    print(f"{datetime.now():%H:%M:%S}  {text}", file=sys.stderr, flush=True)
