#!/usr/bin/env python3
"""Run the two commands of the README's quick start as a newcomer does (`scripts/check_quick_start.py`).

The first, `make serve`, has to set itself up, answer an image, and stop at Ctrl-C with nothing left running; the
second, `make test`, has to pass. Standard library only: before the first command nothing is installed.

Exit codes: 0 both did, 1 one did not.
"""

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import TextIO, cast

ROOT = Path(__file__).resolve().parent.parent
IMAGE = ROOT / "ui" / "sample.jpg"
PORTS = ("port", "management-port", "metrics-port", "grpc-port", "grpc-management-port", "status-port", "access-port")
SERVING = re.compile(r"Serving at (http://\S+);")


class Failed(Exception):
    """A command did not do what the README says; the message is one sentence."""


def main() -> int:
    """Run both commands; return a process exit code."""
    parser = argparse.ArgumentParser(description="Run the two commands of the README's quick start.")
    parser.add_argument("--free-ports", action="store_true", help="serve on free ports, not on the README's")
    parser.add_argument("--limit", type=float, default=3600, help="seconds for a command (default: %(default)g)")
    parser.add_argument(
        "--test-options", default="", help="pytest's options for the second command, such as '-k images'"
    )
    parser.add_argument("--only", choices=["serve", "test"], help="one of the two commands")
    args = parser.parse_args()
    serve, test = quick_start()
    print(f"Python {sys.version.split()[0]}, {os.uname().machine}, user {os.getuid()}, in {ROOT}", flush=True)
    try:
        if args.only != "test":
            check_serve(serve + (free_ports() if args.free_ports else []), args.limit)
        if args.only != "serve":
            options = [f"ARGS={args.test_options}"] if args.test_options else []
            check_test(test + options, args.limit)
    except Failed as problem:
        print(problem, file=sys.stderr)
        return 1
    return 0


def quick_start() -> tuple[list[str], list[str]]:
    """Return the two commands as the README has them."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Quick start\n", 1)[1]
    block = section.split("```")[1]
    serve, test = (line.split("#")[0].split() for line in block.strip().splitlines())
    return serve, test


def free_ports() -> list[str]:
    """Return an argument of `make serve` with ports that nothing listens on."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in PORTS]
    numbers = [server.getsockname()[1] for server in held]
    for server in held:
        server.close()
    options = " ".join(f"--{name} {number}" for name, number in zip(PORTS, numbers, strict=True))
    return [f"ARGS={options}"]


def check_serve(command: list[str], limit_s: float) -> None:
    """Start the service, ask it, press Ctrl-C."""
    start = time.monotonic()
    print("$", *command, flush=True)
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True, text=True
    )
    output = cast(TextIO, process.stdout)
    # The limit ends a set-up that hangs, and so the loop over its output.
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(process.pid, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        url = ""
        for line in output:
            print(line, end="", flush=True)
            if match := SERVING.search(line):
                url = match[1]
                break
        if not url:
            raise Failed(f"{' '.join(command)}: it ended with {process.wait()} and never served.")
        ready_s = time.monotonic() - start
        # Else urllib names a form's type, which TorchServe reads as a form.
        headers = {"Content-Type": "application/octet-stream"}
        request = urllib.request.Request(url, IMAGE.read_bytes(), headers, method="PUT")  # noqa: S310
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as response:
            answer = json.load(response)
        best = answer["predictions"][0]
        print(f"Answer after {ready_s:.0f} s: {best['label']} {best['probability']:.1%}", flush=True)
        # A terminal sends Ctrl-C to make and to what make started.
        os.killpg(process.pid, signal.SIGINT)
        for line in output:
            print(line, end="", flush=True)
        process.wait()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        left = alive(process.pid)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if left:
        raise Failed(f"{' '.join(command)}: a process was still running after Ctrl-C.")
    size = sum(path.lstat().st_blocks for path in (ROOT / ".venv").rglob("*")) * 512
    print(f"Stopped with {process.returncode}; .venv has {size / 1e9:.1f} GB", flush=True)


def alive(group: int) -> bool:
    """Return whether a process of this group is there still."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def check_test(command: list[str], limit_s: float) -> None:
    """Run the test suite."""
    start = time.monotonic()
    print("$", *command, flush=True)
    try:
        done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, timeout=limit_s, check=False)
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(command)}: not done after {limit_s:g} s.") from None
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}: it ended with {done.returncode}.")
    print(f"Passed after {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
