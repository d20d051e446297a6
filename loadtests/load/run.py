"""`python -m loadtests run`: calibrate, load, write the report, say whether the targets are met."""

import argparse
import os
import platform
import sys
import time
from datetime import datetime
from pathlib import Path

from loadtests.load import closedloop, options, shapes, workers
from loadtests.load.closedloop import LocustError
from loadtests.load.images import Photograph
from loadtests.load.openloop import Limits
from loadtests.load.shapes import Stage
from loadtests.load.target import Target, parse_headers
from loadtests.results import expected_labels, report, summary
from loadtests.results.expected_labels import CalibrationError
from loadtests.results.run_record import RunRecord
from loadtests.results.stats import Ledger
from loadtests.results.summary import Slo

MET, MISSED, NOT_MEASURED, INTERRUPTED = 0, 1, 3, 130
EXAMPLES = """\
examples:
  one rate, one minute      run --rate 100 --seconds 60
  the highest rate held     run --shape steps --from 40 --to 320 --by 20 --seconds 10 --hold 240
  a spike, then recovery    run --shape spike --rate 80 --peak 300
  an hour                   run --shape soak --rate 100 --seconds 3600
  32 users (Locust)         run --loop closed --rate 32 --seconds 30
  1 % broken bodies         run --rate 100 --broken 0.01
"""
_LONGEST_S = 24 * 3600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `run`."""
    parser.add_argument("--url", default="http://127.0.0.1:8080/predictions/flowers", help="default: %(default)s")
    load = parser.add_argument_group("the load")
    load.add_argument(
        "--loop",
        choices=["open", "closed"],
        default="open",
        help="open: arrivals per second, whatever the answers; closed: users who wait for their answers",
    )
    load.add_argument("--shape", choices=["constant", "steps", "spike", "soak"], default="constant")
    load.add_argument("--rate", type=float, default=50, help="arrivals per second, or users (%(default)s)")
    load.add_argument("--seconds", type=int, default=10, help="of each step, of each side of a spike, or of all")
    load.add_argument("--from", dest="first", type=float, default=20, help="first level of steps")
    load.add_argument("--to", dest="last", type=float, default=400, help="last level; steps end at the first miss")
    load.add_argument("--by", type=float, default=20, help="from one step to the next")
    load.add_argument("--hold", type=float, help="steps up to this level must meet the targets; default: the first")
    load.add_argument("--peak", type=float, default=200, help="level of a spike")
    load.add_argument("--arrivals", choices=["poisson", "even"], default="poisson", help="of the open loop")
    load.add_argument("--processes", type=int, default=1, help="that send, each its share (%(default)s)")
    options.add_traffic(parser)
    targets = parser.add_argument_group("targets")
    targets.add_argument("--slo-p99-ms", type=float, default=100)
    targets.add_argument("--slo-error-share", type=float, default=0.001, help="0-1 (%(default)s)")
    parser.add_argument("--output", type=Path, help="a folder for the report; default: runs/loadtests/DATE-TIME")


def run(chosen: argparse.Namespace) -> int:
    """Run what the options say; return the exit code."""
    target = Target.parse(chosen.url, parse_headers(chosen.header), chosen.allow_remote)
    stages = _stages(chosen)
    if sum(stage.seconds for stage in stages) > _LONGEST_S or chosen.processes < 1:
        raise ValueError("a run lasts a day at most, and needs one process or more")
    folder = chosen.output or Path("runs/loadtests", datetime.now().strftime("%Y%m%d-%H%M%S"))
    folder.mkdir(parents=True, exist_ok=True)
    photographs = options.chosen_photographs(chosen)
    try:
        known = expected_labels.calibrate(target, photographs)
        record = _record(chosen, target, stages, photographs, known.right)
        _load(chosen, record, target, photographs, dict(known.labels), folder)
    except (CalibrationError, LocustError) as error:
        print(error, file=sys.stderr)
        return NOT_MEASURED
    record.save(folder)
    print("\n" + report.write(record, folder))
    if record.interrupted:
        return INTERRUPTED
    found = summary.points(record)
    if not found:
        return NOT_MEASURED
    return MET if summary.judge(found, Slo(**record.targets)).met else MISSED


def _stages(chosen: argparse.Namespace) -> list[Stage]:
    if chosen.shape == "steps":
        return shapes.steps(chosen.first, chosen.last, chosen.by, chosen.seconds, chosen.hold)
    if chosen.shape == "spike":
        return shapes.spike(chosen.rate, chosen.peak, chosen.seconds)
    if chosen.shape == "soak":
        return shapes.soak(chosen.rate, chosen.seconds)
    return shapes.constant(chosen.rate, chosen.seconds)


def _record(
    chosen: argparse.Namespace, target: Target, stages: list[Stage], photographs: list[Photograph], right: float | None
) -> RunRecord:
    sizes = sorted(len(photo.body) / 1000 for photo in photographs)
    source = "given" if chosen.photos else "drawn"
    traffic = f"{len(photographs)} {source} photographs of {sizes[0]:.0f} to {sizes[-1]:.0f} KB"
    if chosen.broken:
        traffic += f", {chosen.broken:.1%} broken bodies"
    targets = {"p99_ms": chosen.slo_p99_ms, "error_share": chosen.slo_error_share}
    machine = f"{platform.node()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} before the run"
    return RunRecord(
        chosen.loop, chosen.shape, target.url, chosen.arrivals, stages, targets, traffic, right, machine=machine
    )


def _load(
    chosen: argparse.Namespace,
    record: RunRecord,
    target: Target,
    photographs: list[Photograph],
    expected: dict[str, str],
    folder: Path,
) -> None:
    """Run the stages and put what happened into the record."""
    began = time.monotonic()
    if record.loop == "closed":
        start_s, record.ledger, record.interrupted = closedloop.run(
            target, record.stages, _handed_on(chosen), folder, chosen.processes
        )
        _begin(record, start_s, record.stages)
    else:
        limits = Limits(chosen.timeout_s)
        plan = workers.Plan(target, tuple(photographs), expected, chosen.broken, chosen.seed, chosen.arrivals, limits)
        _open(plan, record, chosen.processes)
    spent_s = time.monotonic() - began
    # Locust starts and draws before its clock runs; its CPU seconds are those of the stages.
    record.elapsed_s = (
        min(spent_s, sum(stage.seconds for stage in record.stages)) if record.loop == "closed" else spent_s
    )


def _open(plan: workers.Plan, record: RunRecord, processes: int) -> None:
    """Run the stages in the open loop; steps one by one, until the first that misses the targets."""
    slo = Slo(**record.targets)
    separate = record.shape == "steps"
    cpu_s: dict[str, float] = {}
    for group in [[stage] for stage in record.stages] if separate else [record.stages]:
        sent = workers.run(plan, group, processes, _show)
        cpu_s = {name: cpu_s.get(name, 0.0) + used for name, used in sent.ledger.cpu_s.items()}
        record.ledger.merge(sent.ledger)
        record.ledger.cpu_s, record.interrupted = cpu_s, sent.interrupted
        _begin(record, sent.start_s, group)
        found = summary.points(record)
        print("\r" + report.line(found[-1]) if found else "\rno answer", file=sys.stderr, flush=True)
        if record.interrupted or (separate and found and not found[-1].meets(slo)):
            return


def _begin(record: RunRecord, start_s: float, stages: list[Stage]) -> None:
    for stage in stages:
        record.starts_s.append(start_s)
        start_s += stage.seconds


def _show(ledger: Ledger) -> None:
    """Print the last whole second of a run in progress."""
    last = max(ledger.seconds, default=0) - 1
    tally = ledger.seconds.get(last)
    if tally and sys.stderr.isatty():
        text = (
            f"\r{len(ledger.seconds):5d} s  {tally.outcomes['ok']:5d}/s  p50 {tally.latency.percentile(0.5):6.1f} ms "
        )
        print(text, end="", file=sys.stderr, flush=True)


def _handed_on(chosen: argparse.Namespace) -> list[str]:
    """Return the traffic's options as Locust gets them."""
    handed = [f"--sizes={chosen.sizes}", f"--broken={chosen.broken}", f"--seed={chosen.seed}"]
    handed.append(f"--timeout-s={chosen.timeout_s}")
    handed += [f"--{name}={value}" for name in ("photos", "labels") if (value := getattr(chosen, name))]
    handed += [f"--header={entry}" for entry in chosen.header]
    return handed + (["--allow-remote"] if chosen.allow_remote else [])
