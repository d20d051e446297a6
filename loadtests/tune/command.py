"""`python -m loadtests tune`: find the settings that sustain the highest rate under a p99 target on this machine.

It searches batch size, delay, workers, threads and engine; then it compares the best setting with the shipped one in
paired rounds. A profile is written only if the gain is certain: where two settings are equal, in at most 5 % of runs.
A rate counts as missed when it is missed twice. A trial takes up to a minute, longer in the comparison; there are about
twenty trials and two for each round, in all about 40 minutes. The machine should do nothing else.

Exit codes: 0 done, 1 no setting meets the target, 2 the command line is wrong or something is missing, 130 Ctrl-C.
"""

import argparse
import json
import sys
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from loadtests import machine
from loadtests.benchmark.services import SetupError
from loadtests.load.images import EncodedImage, read_images, synthetic_images
from loadtests.results.summary import Slo
from loadtests.tune import report, search, trial
from loadtests.tune import setting as settings
from loadtests.tune.search import Comparison, TrialLog
from loadtests.tune.setting import Setting
from loadtests.tune.trial import Conditions, Result

_NOTHING, _USAGE, _INTERRUPTED = 1, 2, 130
_SETTINGS = "tune.json"
# Rates are tried for longer in the last comparison: a p99 of five seconds rests on a dozen requests.
_FINAL_FACTOR = 2
_SIZE, _COUNT = (500, 333), 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `tune`."""
    parser.add_argument("--bundle", type=Path, default=Path("model_store/flowers"), help="default: %(default)s")
    parser.add_argument("--archive", type=Path, help="default: the bundle's folder with .mar")
    parser.add_argument("--slo-p99-ms", type=float, default=100, help="the target (%(default)s)")
    parser.add_argument("--images", type=Path, help="a folder of images; default: synthetic ones of 500 x 333")
    parser.add_argument(
        "--seconds",
        type=int,
        default=5,
        help="how long each rate is tried (%(default)s), twice as long in the last comparison",
    )
    parser.add_argument("--rounds", type=int, default=8, help="of the last comparison, 5 or more (%(default)s)")
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
    if args.slo_p99_ms <= 0 or args.seconds < 1:
        raise ValueError("--slo-p99-ms and --seconds must be positive")
    if not search.bound_rank(args.rounds):
        raise ValueError(f"--rounds {args.rounds} cannot show a difference with 95 % confidence: 5 or more can")
    folder.mkdir(parents=True, exist_ok=True)
    facts = _facts(args, folder)
    cores = int(facts["usable_cores"])
    shipped, log = settings.shipped(archive, cores), TrialLog(folder)
    slo = Slo(args.slo_p99_ms, 0.0)
    conditions = Conditions(archive, archive.stem, tuple(_images(args.images)), slo, args.seconds)
    try:
        best = search.search(shipped, cores, partial(trial.run, conditions), log, _say, settings.device(archive))
        comparison = _compared(shipped, best, args.rounds, conditions, log)
    finally:
        _write(log, shipped, facts, args.slo_p99_ms, folder)
    return _conclude(args, facts, best, comparison)


def _facts(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return the facts of the machine: those of the search's first start when it is resumed."""
    path = folder / _SETTINGS
    target = {"slo_p99_ms": args.slo_p99_ms, "seconds": args.seconds, "images": str(args.images or "synthetic")}
    target["rounds"] = args.rounds  # fixed beforehand: rounds added until the result pleases would prove nothing
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


def _compared(shipped: Setting, best: Result, rounds: int, conditions: Conditions, log: TrialLog) -> Comparison | None:
    if best.setting == shipped or not best.rate:
        return None
    _say("the best against the shipped settings:")
    longer = replace(conditions, seconds=_FINAL_FACTOR * conditions.seconds)
    return search.compare(shipped, best.setting, rounds, partial(trial.run, longer), log, _say)


def _write(log: TrialLog, shipped: Setting, facts: dict[str, Any], slo_ms: float, folder: Path) -> None:
    """Write the results so far: table and figure."""
    text = report.markdown(log, shipped, machine.sentence(facts), slo_ms)
    (folder / report.MARKDOWN).write_text(text, encoding="utf-8")
    report.draw(log.results("search"), shipped, slo_ms, folder / report.FIGURE)
    print(f"\n{text}\n{folder / report.MARKDOWN}, {folder / report.FIGURE}", flush=True)


def _conclude(args: argparse.Namespace, facts: dict[str, Any], best: Result, comparison: Comparison | None) -> int:
    """Print the conclusion; write the profile when it is better."""
    if not best.rate:
        print(f"No setting keeps p99 below {args.slo_p99_ms:g} ms at any rate tried.", file=sys.stderr)
        return _NOTHING
    if comparison is None:
        print("No setting that was tried sustains more than the shipped one: keep it.")
        return 0
    measured = (
        f"{best.setting} sustains {comparison.ratio:.2f} times the shipped settings' rate "
        f"(at least {comparison.lower:.2f} with 95 % confidence, {len(comparison.ratios)} rounds)"
    )
    if not comparison.better:
        print(f"{measured}: no certain gain above {search.WORTH_IT - 1:.0%}, keep the shipped settings.")
        return 0
    path = args.profile or args.bundle / "tuned.yaml"
    report.write_profile(best.setting, path, f"p99 below {args.slo_p99_ms:g} ms, {machine.sentence(facts)}")
    print(f"{measured}. Written to {path}: run `make archive`.")
    return 0


def _say(text: str) -> None:
    print(f"{datetime.now():%H:%M:%S}  {text}", file=sys.stderr, flush=True)
