"""The files of this repository, as git lists them."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def tracked(*patterns: str) -> list[str]:
    """Return the paths that git tracks, relative to the root; without git or a clone the caller's tests are skipped."""
    try:
        done = subprocess.run(
            ["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("the list of files comes from git: install it, and clone the repository", allow_module_level=True)
    return done.stdout.splitlines()
