"""A folder of images, and the command as a program of its own."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.unit.client import fake_service

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "visionserve.cli"]
serving = functools.partial(fake_service.serving, served=["flowers"])
Program = Callable[..., subprocess.CompletedProcess[str]]


def environment(**more: str) -> dict[str, str]:
    """The environment of the tests, without an address or an API key of whoever runs them."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("VISIONSERVE_") and not name.lower().endswith("_proxy")
    }
    return {**inherited, "PYTHONPATH": str(ROOT), **more}


@pytest.fixture
def program() -> Program:
    """Run the command to its end."""

    def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [*options.pop("prefix", []), *COMMAND, *map(str, arguments)]
        more = options.pop("env", {})
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=120, env=environment(**more), **options
        )

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images in two folders, beside two files that are not taken."""
    rng = np.random.default_rng(3)
    for number in range(6):
        path = tmp_path / "in" / f"row-{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(path)
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    (tmp_path / "in" / ".hidden.jpg").write_bytes(b"hidden")
    return tmp_path / "in"
