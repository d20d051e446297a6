"""The tests are collected on any machine: what a test needs and is not there skips that test, not the whole run."""

import os
import subprocess
import sys

from tests.repository import ROOT

# Those of tests/unit need no programs, and take long to import.
FOLDERS = ["tests/cluster", "tests/container", "tests/contract", "tests/docs", "tests/e2e"]


def test_a_machine_without_programs_collects_every_test() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", "-p", "no:cacheprovider", *FOLDERS]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PATH": "/nonexistent"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
