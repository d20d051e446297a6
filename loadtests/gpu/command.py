"""`python -m loadtests gpu`: measure what a GPU machine does, part by part; on a CPU it is a rehearsal.

It needs Python with torch, and no network: engine and decoder rates, agreement with the fp32 network, TorchServe end
to end, a worker killed under load, training. Each part runs in a process of its own with a share of the time and writes
its JSON as it goes; a part that is ended or fails keeps the rows that it has. The result is one Markdown table.

Exit codes: 0 every part ran to its end, 1 a part failed or was ended, 2 the command line is wrong, 130 interrupted.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from loadtests.gpu.job import Device, Job
from loadtests.load.images import synthetic_images

_FAILED, _INTERRUPTED = 1, 130
MARKDOWN = "gpu.md"
# After its time a part has so long to stop its servers.
_GRACE_S, _KILL_S = 10, 20
_IMAGE_SIZE, _IMAGES = (700, 500), 24
# Time that stays unused for the parent's own work and a part that ends late.
_RESERVE_S = 15
# torch alone takes half of this to import on a cold or busy machine; parts that do not need it leave it to others.
_LEAST_S, _TOO_SHORT_S = 60.0, 5.0


@dataclass(frozen=True)
class Part:
    """A part: its module, its share of the time, and what it measures."""

    module: str
    weight: float
    title: str


PARTS = {
    "environment": Part("loadtests.gpu.library", 0.5, "Machine"),
    "engine": Part("loadtests.gpu.library", 2, "Engine"),
    "decode": Part("loadtests.gpu.library", 1.2, "Decode"),
    "agreement": Part("loadtests.gpu.library", 1.2, "Agreement"),
    "service": Part("loadtests.gpu.service", 3.5, "TorchServe, end to end"),
    "worker-kill": Part("loadtests.gpu.service", 1.8, "A worker killed under load"),
    "training": Part("loadtests.gpu.training", 2, "Training"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gpu`."""
    parser.add_argument("--bundle", type=Path, default=Path("model_store/flowers"), help="default: %(default)s")
    parser.add_argument(
        "--archive", type=Path, help="a .mar built for the device; default: the bundle's name with .mar, if it is there"
    )
    parser.add_argument("--images", type=Path, help=f"a folder of real images; default: {_IMAGES} synthetic ones")
    parser.add_argument("--device", choices=["auto", "cuda", "cpu"], default="auto", help="auto: CUDA if torch has it")
    parser.add_argument("--only", default=",".join(PARTS), help="some of the parts: %(default)s")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all parts together (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="the shortest run of everything: about a minute on a CPU")
    parser.add_argument("--output", type=Path, help="a folder for the results; default: runs/gpu/DATE-TIME")


def run(args: argparse.Namespace) -> int:
    """Run the parts, print the table; return the exit code."""
    names = [name for name in args.only.split(",") if name]
    if unknown := set(names) - set(PARTS):
        raise ValueError(f"unknown parts: {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}")
    if args.minutes <= 0:
        raise ValueError("--minutes must be positive")
    deadline = time.monotonic() + 60 * args.minutes - _RESERVE_S
    folder = args.output or Path("runs/gpu", datetime.now().strftime("%Y%m%d-%H%M%S"))
    folder.mkdir(parents=True, exist_ok=True)
    device = _device(args.device)
    _say(f"device {device}, parts {', '.join(names)}, results in {folder}")
    faults: dict[str, str] = {}
    try:
        for number, name in enumerate(names):
            seconds = _share(names[number:], deadline - time.monotonic())
            if seconds < _TOO_SHORT_S:
                faults[name] = f"no time left of {args.minutes:g} minutes"
                continue
            _say(f"{name}: at most {seconds:.0f} s ...")
            if fault := _run_part(name, _job(args, name, device, seconds, folder), folder):
                faults[name] = fault
                _say(f"{name}: {fault}")
    except KeyboardInterrupt:
        print(markdown(folder, names, faults), flush=True)
        print(f"Interrupted; the results so far are in {folder}.", file=sys.stderr)
        return _INTERRUPTED
    text = markdown(folder, names, faults)
    (folder / MARKDOWN).write_text(text, encoding="utf-8")
    print(text, flush=True)
    return _FAILED if faults else 0


def markdown(folder: Path, names: list[str], faults: dict[str, str]) -> str:
    """Return one table of all rows, and under it what is missing and why."""
    lines, left_out = ["| part | measured | result |", "|---|---|---|"], []
    for name in names:
        content = _read(folder / f"{name}.json")
        for number, row in enumerate(content["rows"]):
            lines.append(
                f"| {PARTS[name].title if not number else ''} | {_cell(row['what'])} | {_cell(row['value'])} |"
            )
        left_out += [f"- {PARTS[name].title}: {entry}" for entry in content["left_out"]]
        left_out += [f"- {PARTS[name].title}: {faults[name]}"] if name in faults else []
    missing = ["", "Left out:", "", *left_out] if left_out else []
    return "\n".join([*lines, *missing]) + "\n"


def _device(choice: str) -> Device:
    """Return the device; torch is asked in a process of its own, which keeps its memory out of this one."""
    if choice != "auto":
        return "cuda" if choice == "cuda" else "cpu"
    if importlib.util.find_spec("torch") is None:
        raise ValueError("torch is not installed: it runs the network")
    code = "import torch; raise SystemExit(0 if torch.cuda.is_available() else 1)"
    return "cuda" if subprocess.run([sys.executable, "-c", code], check=False).returncode == 0 else "cpu"


def _share(names: list[str], remaining_s: float) -> float:
    """Return the time of the first of some parts: its share by weight; what others leave unused is divided again."""
    share = remaining_s * PARTS[names[0]].weight / sum(PARTS[name].weight for name in names)
    return min(max(_LEAST_S, share), remaining_s)


def _job(args: argparse.Namespace, name: str, device: Device, seconds: float, folder: Path) -> Job:
    archive = args.archive or args.bundle.with_name(f"{args.bundle.name}.mar")
    unpacked = folder / "unpacked"
    if archive.is_file() and not unpacked.is_dir():
        with zipfile.ZipFile(archive) as content:
            content.extractall(unpacked)
    if args.archive and not archive.is_file():
        raise ValueError(f"{archive} is missing: `make archive` builds one")
    exists = archive.is_file()
    return Job(
        str(args.bundle.resolve()),
        str(archive.resolve()) if exists else None,
        str(unpacked.resolve()) if exists else None,
        str(args.images.resolve() if args.images else _synthetic(folder / "images")),
        args.images is None,
        device,
        args.quick,
        seconds,
        str((folder / f"{name}.json").resolve()),
    )


def _synthetic(folder: Path) -> Path:
    if not folder.is_dir():
        folder.mkdir()
        for image in synthetic_images({_IMAGE_SIZE: 1.0}, _IMAGES):
            (folder / f"{image.name}.jpg").write_bytes(image.body)
    return folder.resolve()


def _run_part(name: str, job: Job, folder: Path) -> str:
    """Run a part in its time; return what went wrong, nothing when it ran to its end."""
    path, log = folder / f"{name}.job.json", folder / f"{name}.log"
    job.save(path)
    Path(job.output).unlink(missing_ok=True)
    command = [sys.executable, "-m", PARTS[name].module, name, str(path)]
    with log.open("wb") as stream:
        child = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            child.wait(job.seconds + _GRACE_S)
        except subprocess.TimeoutExpired:
            return f"ended after {job.seconds + _GRACE_S:.0f} s, before it was complete"
        finally:
            _stop(child)
    if child.returncode != 0:
        lines = log.read_text("utf-8", "replace").strip().splitlines() or ["no message"]
        return f"failed: {lines[-1]} (see {log})"
    return ""


def _stop(child: "subprocess.Popen[bytes]") -> None:
    """Let a part that still runs stop its servers, then kill what is left of its processes."""
    if child.poll() is not None:
        return
    below = _descendants(child.pid)
    child.terminate()
    try:
        child.wait(_KILL_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    for pid, started in below.items():
        if _processes().get(pid, (0, ""))[1] == started:  # another process may have got the number meanwhile
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _descendants(pid: int) -> dict[int, str]:
    """Return the processes below one, with their start times."""
    processes = _processes()
    below: dict[int, str] = {}
    parents = {pid}
    while parents := {child for child, (parent, _) in processes.items() if parent in parents}:
        below |= {child: processes[child][1] for child in parents}
    return below


def _processes() -> dict[int, tuple[int, str]]:
    """Return parent and start time of every process, from /proc: psutil need not be there if no service is measured."""
    processes = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            processes[int(stat.parent.name)] = (int(fields[1]), fields[19])
    return processes


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {"rows": [], "left_out": []}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")


def _say(text: str) -> None:
    print(f"{datetime.now():%H:%M:%S}  {text}", file=sys.stderr, flush=True)
