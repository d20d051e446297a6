"""`python -m loadtests.tune`: find the settings that hold the highest rate under a latency target on this machine.

Exit codes: 0 done, 1 nothing holds the target, 2 the command line is wrong or something is missing, 130 Ctrl-C.
"""

import argparse
import json
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from loadtests.benchmark import facts
from loadtests.benchmark.services import SetupError
from loadtests.load import images
from loadtests.load.images import Photograph
from loadtests.results.summary import Slo
from loadtests.tune import report, search, trial
from loadtests.tune import setting as settings
from loadtests.tune.search import Notebook
from loadtests.tune.setting import Setting
from loadtests.tune.trial import Result, Workload

_NOTHING, _USAGE, _INTERRUPTED = 1, 2, 130
_SETTINGS = "tune.json"
# Shipped settings this close to the best stay: the rest is noise, and one machine's at that.
_CLOSE = 1.05
_SIZE, _COUNT = (500, 333), 24


def main(arguments: list[str] | None = None) -> int:
    """Run the tuner and return its exit code."""
    options = _parser().parse_args(arguments)
    folder = options.resume or options.output or Path("runs/tune", datetime.now().strftime("%Y%m%d-%H%M%S"))
    try:
        return _tune(options, folder)
    except (ValueError, SetupError) as error:
        print(error, file=sys.stderr)
        return _USAGE
    except KeyboardInterrupt:
        print(f"\nInterrupted; go on with: python -m loadtests.tune --resume {folder}", file=sys.stderr)
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.tune",
        description="Search batch size, delay, workers, threads and engine for the highest rate under a p99 target. "
        "A rate is missed when it is missed twice. "
        "Takes up to a minute a trial and some twenty trials; the machine should do nothing else.",
    )
    parser.add_argument("--bundle", type=Path, default=Path("model_store/flowers"), help="default: %(default)s")
    parser.add_argument("--archive", type=Path, help="default: the bundle's folder with .mar")
    parser.add_argument("--slo-p99-ms", type=float, default=100, help="the target (%(default)s)")
    parser.add_argument("--photos", type=Path, help="a folder of photographs; default: drawn ones of 500 x 333")
    parser.add_argument("--seconds", type=int, default=5, help="how long each rate is tried (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of the last comparison (%(default)s)")
    parser.add_argument("--profile", type=Path, help="where the winner is written; default: tuned.yaml in the bundle")
    parser.add_argument("--output", type=Path, help="a folder for the results; default: runs/tune/DATE-TIME")
    parser.add_argument("--resume", type=Path, metavar="FOLDER", help="go on with an interrupted search")
    return parser


def _tune(options: argparse.Namespace, folder: Path) -> int:
    archive: Path = (options.archive or options.bundle.with_name(f"{options.bundle.name}.mar")).resolve()
    if not archive.is_file():
        raise SetupError(f"{archive} is missing: `make archive` builds it")
    if options.slo_p99_ms <= 0 or options.seconds < 1 or options.rounds < 1:
        raise ValueError("--slo-p99-ms, --seconds and --rounds must be positive")
    folder.mkdir(parents=True, exist_ok=True)
    known = _known(options, folder)
    cores = int(known["facts"]["usable_cores"])
    shipped, notebook = settings.shipped(archive, cores), Notebook(folder)
    slo = Slo(options.slo_p99_ms, 0.0)
    workload = Workload(archive, archive.stem, tuple(_photographs(options.photos)), slo, options.seconds)
    try:
        best = search.search(shipped, cores, lambda setting: trial.run(setting, workload), notebook, _say)
        ratio = _compared(shipped, best, options.rounds, workload, notebook)
    finally:
        _write(notebook, shipped, known, options.slo_p99_ms, folder)
    return _conclude(options, known, best, ratio)


def _known(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return facts and target of the search: those of its first start when it is resumed."""
    path = folder / _SETTINGS
    target = {"slo_p99_ms": options.slo_p99_ms, "seconds": options.seconds, "photos": str(options.photos or "drawn")}
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found["target"] != target:
            raise ValueError(f"{folder} was searched with {found['target']}, not {target}: give the same options")
        return found
    known = {"facts": facts.gather(), "target": target}
    if known["facts"]["load_before"] > facts.BUSY:
        _say(f"CAUTION: the machine is not idle (load {known['facts']['load_before']:g}).")
    path.write_text(json.dumps(known, indent=2), encoding="utf-8")
    return known


def _photographs(given: Path | None) -> list[Photograph]:
    return images.read(given) if given else images.drawn({_SIZE: 1.0}, _COUNT)


def _compared(shipped: Setting, best: Result, rounds: int, workload: Workload, notebook: Notebook) -> float:
    if best.setting == shipped or not best.rate:
        return 1.0
    _say("the best against the shipped settings:")
    return search.compare(shipped, best.setting, rounds, lambda one: trial.run(one, workload), notebook, _say)


def _write(notebook: Notebook, shipped: Setting, known: dict[str, Any], slo_ms: float, folder: Path) -> None:
    """Write what there is: table and picture."""
    text = report.markdown(notebook, shipped, facts.sentence(known["facts"]), slo_ms)
    (folder / report.MARKDOWN).write_text(text, encoding="utf-8")
    report.draw(notebook.results("search"), shipped, slo_ms, folder / report.PICTURE)
    print(f"\n{text}\n{folder / report.MARKDOWN}, {folder / report.PICTURE}", flush=True)


def _conclude(options: argparse.Namespace, known: dict[str, Any], best: Result, ratio: float) -> int:
    """Say what to do; write the profile where it is worth having."""
    if not best.rate:
        print(f"No setting holds p99 below {options.slo_p99_ms:g} ms at any rate tried.", file=sys.stderr)
        return _NOTHING
    if ratio <= _CLOSE:
        print(f"The shipped settings hold as much as the best found, {best.setting} (ratio {ratio:.2f}): keep them.")
        return 0
    path = options.profile or options.bundle / "tuned.yaml"
    report.write_profile(best.setting, path, f"p99 below {options.slo_p99_ms:g} ms, {facts.sentence(known['facts'])}")
    print(f"{best.setting} holds {ratio:.2f} times what the shipped settings hold. Written to {path}: `make archive`.")
    return 0


def _say(text: str) -> None:
    print(f"{datetime.now():%H:%M:%S}  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    # Ended by a supervisor, it stops its servers and keeps its results as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
