import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.__main__ import COMMANDS, main

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    help_text = capsys.readouterr().out
    assert f"python -m loadtests {command}" in help_text
    assert "--" in help_text


def test_the_overview_names_every_command_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    overview = capsys.readouterr().out
    assert all(command in overview for command in COMMANDS)
    script = "import sys; from loadtests.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    script += "print(sorted(set(sys.modules) & {'numpy', 'matplotlib', 'psutil', 'torch', 'PIL', 'yaml'}))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_loading_a_service_imports_nothing_of_it() -> None:
    script = "import sys, loadtests.load.run, loadtests.benchmark.command, loadtests.soak, loadtests.restarts\n"
    script += (
        "print(sorted(name for name in sys.modules if name.split('.')[0] in ('visionserve', 'launcher', 'torch')))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_unknown_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["endurance"])
    assert "endurance" in capsys.readouterr().err
