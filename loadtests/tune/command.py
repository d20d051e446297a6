"""`python -m loadtests tune`: find the settings that sustain the highest rate under a p99 target on this machine.

It searches batch size, delay, workers, threads and engine. A rate counts as missed when it is missed twice. A trial
takes up to a minute, a search about twenty trials; the machine should do nothing else.

Exit codes: 0 done, 1 no setting meets the target, 2 the command line is wrong or something is missing, 130 Ctrl-C.
"""

import argparse
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from loadtests import machine
from loadtests.benchmark.services import SetupError
from loadtests.load.images import EncodedImage, read_images, synthetic_images
from loadtests.results.summary import Slo
from loadtests.tune import report, search, trial
from loadtests.tune import setting as settings
from loadtests.tune.search import TrialLog
from loadtests.tune.setting import Setting
from loadtests.tune.trial import Conditions, Result

_NOTHING, _USAGE, _INTERRUPTED = 1, 2, 130
_SETTINGS = "tune.json"
# Shipped settings this close to the best are kept: the difference is noise of one machine.
_CLOSE = 1.05
_SIZE, _COUNT = (500, 333), 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `tune`."""
    parser.add_argument("--bundle", type=Path, default=Path("model_store/flowers"), help="default: %(default)s")
    parser.add_argument("--archive", type=Path, help="default: the bundle's folder with .mar")
    parser.add_argument("--slo-p99-ms", type=float, default=100, help="the target (%(default)s)")
    parser.add_argument("--images", type=Path, help="a folder of images; default: synthetic ones of 500 x 333")
    parser.add_argument("--seconds", type=int, default=5, help="how long each rate is tried (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of the last comparison (%(default)s)")
    parser.add_argument(
        "--profile", type=Path, help="where a better setting is written; default: tuned.yaml in the bundle"
    )
    parser.add_argument("--output", type=Path, help="a folder for the results; default: runs/tune/DATE-TIME")
    parser.add_argument("--resume", type=Path, metavar="FOLDER", help="continue an interrupted search")


def run(args: argparse.Namespace) -> int:
    """Run the tuner and return its exit code."""
    folder = args.resume or args.output or Path("runs/tune", datetime.now().strftime("%Y%m%d-%H%M%S"))
    try:
        return _tune(args, folder)
    except SetupError as error:
        print(error, file=sys.stderr)
        return _USAGE
    except KeyboardInterrupt:
        print(f"\nInterrupted; continue with: python -m loadtests tune --resume {folder}", file=sys.stderr)
        return _INTERRUPTED


def _tune(args: argparse.Namespace, folder: Path) -> int:
    archive: Path = (args.archive or args.bundle.with_name(f"{args.bundle.name}.mar")).resolve()
    if not archive.is_file():
        raise SetupError(f"{archive} is missing: `make archive` builds it")
    if args.slo_p99_ms <= 0 or args.seconds < 1 or args.rounds < 1:
        raise ValueError("--slo-p99-ms, --seconds and --rounds must be positive")
    folder.mkdir(parents=True, exist_ok=True)
    facts = _facts(args, folder)
    cores = int(facts["usable_cores"])
    shipped, log = settings.shipped(archive, cores), TrialLog(folder)
    slo = Slo(args.slo_p99_ms, 0.0)
    conditions = Conditions(archive, archive.stem, tuple(_images(args.images)), slo, args.seconds)
    try:
        best = search.search(shipped, cores, lambda setting: trial.run(setting, conditions), log, _say)
        ratio = _compared(shipped, best, args.rounds, conditions, log)
    finally:
        _write(log, shipped, facts, args.slo_p99_ms, folder)
    return _conclude(args, facts, best, ratio)


def _facts(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return the facts of the machine: those of the search's first start when it is resumed."""
    path = folder / _SETTINGS
    target = {"slo_p99_ms": args.slo_p99_ms, "seconds": args.seconds, "images": str(args.images or "synthetic")}
    if path.is_file():
        earlier: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if earlier["target"] != target:
            raise ValueError(f"{folder} was searched with {earlier['target']}, not {target}: use the same options")
        facts: dict[str, Any] = earlier["facts"]
        return facts
    facts = machine.gather()
    if warning := machine.busy_warning(facts):
        _say(warning)
    path.write_text(json.dumps({"facts": facts, "target": target}, indent=2), encoding="utf-8")
    return facts


def _images(folder: Path | None) -> list[EncodedImage]:
    return read_images(folder) if folder else synthetic_images({_SIZE: 1.0}, _COUNT)


def _compared(shipped: Setting, best: Result, rounds: int, conditions: Conditions, log: TrialLog) -> float:
    if best.setting == shipped or not best.rate:
        return 1.0
    _say("the best against the shipped settings:")
    return search.compare(shipped, best.setting, rounds, lambda one: trial.run(one, conditions), log, _say)


def _write(log: TrialLog, shipped: Setting, facts: dict[str, Any], slo_ms: float, folder: Path) -> None:
    """Write the results so far: table and figure."""
    text = report.markdown(log, shipped, machine.sentence(facts), slo_ms)
    (folder / report.MARKDOWN).write_text(text, encoding="utf-8")
    report.draw(log.results("search"), shipped, slo_ms, folder / report.FIGURE)
    print(f"\n{text}\n{folder / report.MARKDOWN}, {folder / report.FIGURE}", flush=True)


def _conclude(args: argparse.Namespace, facts: dict[str, Any], best: Result, ratio: float) -> int:
    """Print the conclusion; write the profile when it is better."""
    if not best.rate:
        print(f"No setting keeps p99 below {args.slo_p99_ms:g} ms at any rate tried.", file=sys.stderr)
        return _NOTHING
    if ratio <= _CLOSE:
        print(f"The shipped settings sustain as much as {best.setting} (ratio {ratio:.2f}): keep them.")
        return 0
    path = args.profile or args.bundle / "tuned.yaml"
    report.write_profile(best.setting, path, f"p99 below {args.slo_p99_ms:g} ms, {machine.sentence(facts)}")
    print(
        f"{best.setting} sustains {ratio:.2f} times the shipped settings' rate. Written to {path}: run `make archive`."
    )
    return 0


def _say(text: str) -> None:
    print(f"{datetime.now():%H:%M:%S}  {text}", file=sys.stderr, flush=True)
