"""`python -m loadtests.benchmark`: our service beside the stock one, peers and the ceilings, on this machine.

Exit codes: 0 measured, 1 a competitor failed, 2 the command line or the set-up is wrong, 130 interrupted.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from loadtests.benchmark import facts, rounds, table
from loadtests.benchmark.rounds import Notebook, Plan
from loadtests.benchmark.services import PEERS, Kitchen, Service, SetupError
from loadtests.load import images
from loadtests.load.images import Photograph

_FAILED, _SETUP, _INTERRUPTED = 1, 2, 130
_FULL = Plan(rounds=5, seconds=5.0, warm_up_s=3.0)
_QUICK = Plan(rounds=3, seconds=2.5, warm_up_s=0.7)
_SIZE = (500, 375)
_COUNT = 24
SETTINGS = "settings.json"
MARKDOWN = "benchmark.md"
JSON = "benchmark.json"


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark and return the exit code."""
    options = _parser().parse_args(arguments)
    folder = options.resume or options.output or Path("runs/benchmark", datetime.now().strftime("%Y%m%d-%H%M%S"))
    try:
        return _benchmark(options, folder)
    except (SetupError, ValueError) as error:
        print(error, file=sys.stderr)
        return _SETUP
    except KeyboardInterrupt:
        print(f"\nInterrupted; what was measured is kept: --resume {folder} goes on.", file=sys.stderr)
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.benchmark", description=(__doc__ or "").split("\n\n", 1)[0]
    )
    parser.add_argument("--bundle", type=Path, default=Path("model_store/flowers"), help="default: %(default)s")
    parser.add_argument("--archive", type=Path, help="default: the bundle's name with .mar")
    parser.add_argument("--photos", type=Path, help=f"a folder of photographs; default: {_COUNT} drawn ones")
    parser.add_argument("--peers", default="", help=f"also compare with: {','.join(PEERS)}; installs them in --cache")
    parser.add_argument(
        "--quick", action="store_true", help="three short rounds in some four minutes, not five in eleven"
    )
    parser.add_argument("--rounds", type=int, help=f"default: {_FULL.rounds}")
    parser.add_argument("--seconds", type=float, help=f"of each window; default: {_FULL.seconds:g}")
    parser.add_argument("--only", default="", help="a part of the competitors, by name: ours,stock,mosec,fastapi")
    parser.add_argument("--cache", type=Path, default=Path(".cache/benchmark"), help="environments are kept here")
    parser.add_argument("--output", type=Path, help="a folder for the results; default: runs/benchmark/DATE-TIME")
    parser.add_argument("--resume", type=Path, metavar="FOLDER", help="go on with an interrupted benchmark")
    return parser


def _benchmark(options: argparse.Namespace, folder: Path) -> int:
    if not options.resume and (folder / rounds.FILE_NAME).exists():
        raise ValueError(f"{folder} holds a benchmark already: --resume {folder} goes on with it")
    folder.mkdir(parents=True, exist_ok=True)
    known = _settings(options, folder)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="visionserve-benchmark-") as name:
        kitchen = _kitchen(options, Path(name))
        _say("making competitors ready ...")
        kitchen.unpack()
        photos, folder_of_photos = _photographs(options.photos, Path(name, "photographs"))
        plan, chosen = _plan(options), _services(options, kitchen)
        notebook = Notebook(folder)
        try:
            rounds.run(
                plan,
                chosen,
                lambda: rounds.measured_ceilings(kitchen.unpacked, folder_of_photos, plan.seconds / 2, Path(name)),
                photos,
                notebook,
                _say,
            )
        finally:
            _write(notebook, known, folder)
    _say(f"done in {time.monotonic() - started:.0f} s: {folder / MARKDOWN}, {folder / JSON}")
    return _FAILED if any("error" in entry for entry in notebook.measurements) else 0


def _kitchen(options: argparse.Namespace, folder: Path) -> Kitchen:
    bundle: Path = options.bundle.resolve()
    archive: Path = options.archive.resolve() if options.archive else bundle.with_name(f"{bundle.name}.mar")
    return Kitchen(bundle, archive, options.cache.resolve(), folder)


def _settings(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return the facts of the benchmark: those of its first start when it is resumed."""
    path = folder / SETTINGS
    if path.is_file():
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return known
    chosen = {name: str(value) for name, value in vars(options).items() if value is not None}
    known = {"facts": facts.gather(), "options": chosen}
    if known["facts"]["load_before"] > facts.BUSY:
        load = known["facts"]["load_before"]
        _say(f"CAUTION: the machine is not idle (load {load:g}); disturbed windows will be counted.")
    path.write_text(json.dumps(known, indent=2), encoding="utf-8")
    return known


def _plan(options: argparse.Namespace) -> Plan:
    usual = _QUICK if options.quick else _FULL
    return Plan(options.rounds or usual.rounds, options.seconds or usual.seconds, usual.warm_up_s)


def _services(options: argparse.Namespace, kitchen: Kitchen) -> list[Service]:
    peers = [name for name in options.peers.split(",") if name]
    unknown = set(peers) - set(PEERS)
    if unknown:
        raise ValueError(f"unknown peers: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    makers = {"ours": kitchen.ours, "stock": kitchen.stock}
    makers |= {name: lambda name=name: kitchen.peer(name) for name in peers}
    wanted = [name for name in options.only.split(",") if name] or list(makers)
    if not set(wanted) <= set(makers):
        raise ValueError(f"--only takes {', '.join(makers)}; peers have to be in --peers too")
    return [makers[name]() for name in wanted]


def _photographs(given: Path | None, folder: Path) -> tuple[list[Photograph], Path]:
    """Return the photographs, and a folder that holds them."""
    if given:
        return images.read(given), given.resolve()
    folder.mkdir()
    drawn = images.drawn({_SIZE: 1.0}, _COUNT)
    for photograph in drawn:
        (folder / f"{photograph.name}.jpg").write_bytes(photograph.body)
    return drawn, folder


def _write(notebook: Notebook, known: dict[str, Any], folder: Path) -> None:
    """Write what there is: table and JSON."""
    content = {**known, "measurements": notebook.measurements}
    (folder / JSON).write_text(json.dumps(content, indent=1), encoding="utf-8")
    options = known["options"]
    sent = f"Photographs: {options.get('photos', f'{_COUNT} drawn ones of {_SIZE[0]} x {_SIZE[1]}')}"
    text = table.markdown(notebook.measurements, known["facts"], sent)
    (folder / MARKDOWN).write_text(text, encoding="utf-8")
    print("\n" + text, flush=True)


def _say(text: str) -> None:
    print(f"{datetime.now():%H:%M:%S}  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    # Ended by a supervisor, it stops its servers and keeps its results as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
