import subprocess
import sys
from pathlib import Path

from tests.repository import ROOT


def test_nobody_imports_whom_they_must_not() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
