"""`python -m loadtests run`: calibrate, load, write the report, check the targets.

Examples:
  one rate, one minute      run --rate 100 --seconds 60
  the highest rate held     run --shape steps --from 40 --to 320 --by 20 --seconds 10 --hold 240
  a spike, then recovery    run --shape spike --rate 80 --peak 300
  an hour                   run --shape soak --rate 100 --seconds 3600
  32 users (Locust)         run --loop closed --rate 32 --seconds 30
  1 % invalid bodies        run --rate 100 --invalid 0.01
"""

import argparse
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from loadtests import machine
from loadtests.load import closedloop, shapes, workers, workload
from loadtests.load.closedloop import LocustError
from loadtests.load.http_client import Target, parse_headers
from loadtests.load.images import EncodedImage
from loadtests.load.openloop import Limits
from loadtests.load.shapes import Stage
from loadtests.results import report, summary
from loadtests.results.run_record import RunRecord
from loadtests.results.stats import RequestStats
from loadtests.results.summary import Slo
from loadtests.results.validation import CalibrationError, calibrate

MET, MISSED, NOT_MEASURED, INTERRUPTED = 0, 1, 3, 130
_LONGEST_S = 24 * 3600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `run`."""
    parser.add_argument("--url", default="http://127.0.0.1:8080/predictions/flowers", help="default: %(default)s")
    load = parser.add_argument_group("the load")
    load.add_argument(
        "--loop",
        choices=["open", "closed"],
        default="open",
        help="open: arrivals per second, however slow the answers; closed: users that wait for their answers",
    )
    load.add_argument("--shape", choices=["constant", "steps", "spike", "soak"], default="constant")
    load.add_argument("--rate", type=float, default=50, help="arrivals per second, or users (%(default)s)")
    load.add_argument("--seconds", type=int, default=10, help="of each step, of each side of a spike, or of all")
    load.add_argument("--from", dest="first", type=float, default=20, help="first level of steps")
    load.add_argument("--to", dest="last", type=float, default=400, help="last level; steps end at the first miss")
    load.add_argument("--by", type=float, default=20, help="from one step to the next")
    load.add_argument(
        "--hold", type=float, help="steps up to this level must meet the targets (default: the first step)"
    )
    load.add_argument("--peak", type=float, default=200, help="level of a spike")
    load.add_argument("--arrivals", choices=["poisson", "even"], default="poisson", help="of the open loop")
    load.add_argument("--processes", type=int, default=1, help="generators that share the load (%(default)s)")
    workload.add_arguments(parser)
    targets = parser.add_argument_group("targets")
    targets.add_argument("--slo-p99-ms", type=float, default=100)
    targets.add_argument("--slo-error-share", type=float, default=0.001, help="0-1 (%(default)s)")
    parser.add_argument("--output", type=Path, help="a folder for the report; default: runs/loadtests/DATE-TIME")


def run(args: argparse.Namespace) -> int:
    """Run what the options say; return the exit code."""
    target = Target.parse(args.url, parse_headers(args.header), args.allow_remote)
    stages = _stages(args)
    if sum(stage.seconds for stage in stages) > _LONGEST_S or args.processes < 1:
        raise ValueError("a run lasts a day at most, and needs one process or more")
    folder = args.output or Path("runs/loadtests", datetime.now().strftime("%Y%m%d-%H%M%S"))
    folder.mkdir(parents=True, exist_ok=True)
    images = workload.load_images(args)
    try:
        calibration = calibrate(target, images)
        record = _record(args, target, stages, images, calibration.accuracy)
        _load(args, record, target, images, dict(calibration.labels), folder)
    except (CalibrationError, LocustError, workers.GeneratorError) as error:
        print(error, file=sys.stderr)
        return NOT_MEASURED
    record.save(folder)
    print("\n" + report.write(record, folder))
    if record.interrupted:
        return INTERRUPTED
    points = summary.points(record)
    if not points:
        return NOT_MEASURED
    return MET if summary.judge(points, Slo(**record.targets)).met else MISSED


def _stages(args: argparse.Namespace) -> list[Stage]:
    if args.shape == "steps":
        return shapes.steps(args.first, args.last, args.by, args.seconds, args.hold)
    if args.shape == "spike":
        return shapes.spike(args.rate, args.peak, args.seconds)
    if args.shape == "soak":
        return shapes.soak(args.rate, args.seconds)
    return shapes.constant(args.rate, args.seconds)


def _record(
    args: argparse.Namespace, target: Target, stages: list[Stage], images: list[EncodedImage], accuracy: float | None
) -> RunRecord:
    sizes = sorted(len(image.body) / 1000 for image in images)
    source = f"images of {args.images}" if args.images else "synthetic images"
    sent = f"{len(images)} {source}, {sizes[0]:.0f} to {sizes[-1]:.0f} KB"
    if args.invalid:
        sent += f", {args.invalid:.1%} invalid bodies"
    targets = {"p99_ms": args.slo_p99_ms, "error_share": args.slo_error_share}
    return RunRecord(
        args.loop, args.shape, target.url, args.arrivals, stages, targets, sent, accuracy, machine=machine.short()
    )


def _load(
    args: argparse.Namespace,
    record: RunRecord,
    target: Target,
    images: list[EncodedImage],
    expected: dict[str, str],
    folder: Path,
) -> None:
    """Run the stages and fill the record."""
    if record.loop == "closed":
        start_s, record.stats, record.interrupted = closedloop.run(
            target, record.stages, _locust_options(args), folder, args.processes
        )
        _begin(record, start_s, record.stages)
    else:
        limits = Limits(args.timeout_s)
        plan = workers.Plan(target, tuple(images), expected, args.invalid, (args.seed,), args.arrivals, limits)
        _open(plan, record, args.processes)


def _open(plan: workers.Plan, record: RunRecord, processes: int) -> None:
    """Run the stages in the open loop; steps one by one, until the first that misses the targets."""
    slo = Slo(**record.targets)
    separate = record.shape == "steps"
    for number, group in enumerate([[stage] for stage in record.stages] if separate else [record.stages]):
        # A step of its own arrivals: the result must not depend on one pattern.
        sent = workers.run(replace(plan, seed=(*plan.seed, number)), group, processes, _show)
        record.stats.merge(sent.stats)
        record.interrupted = sent.interrupted
        _begin(record, sent.start_s, group)
        points = summary.points(record)
        print("\r" + report.line(points[-1]) if points else "\rno answer", file=sys.stderr, flush=True)
        if record.interrupted or (separate and points and not points[-1].meets(slo)):
            return


def _begin(record: RunRecord, start_s: float, stages: list[Stage]) -> None:
    for stage in stages:
        record.starts_s.append(start_s)
        start_s += stage.seconds


def _show(stats: RequestStats) -> None:
    """Print the last whole second of a run in progress."""
    last = max(stats.seconds, default=0) - 1
    interval = stats.seconds.get(last)
    if interval and sys.stderr.isatty():
        p50_ms = interval.latency.percentile(0.5)
        text = f"\r{len(stats.seconds):5d} s  {interval.outcomes['ok']:5d}/s  p50 {p50_ms:6.1f} ms "
        print(text, end="", file=sys.stderr, flush=True)


def _locust_options(args: argparse.Namespace) -> list[str]:
    """Return the options of what is sent, as Locust gets them."""
    options = [f"--sizes={args.sizes}", f"--invalid={args.invalid}", f"--seed={args.seed}"]
    options.append(f"--timeout-s={args.timeout_s}")
    options += [f"--{name}={value}" for name in ("images", "labels") if (value := getattr(args, name))]
    options += [f"--header={entry}" for entry in args.header]
    return options + (["--allow-remote"] if args.allow_remote else [])
