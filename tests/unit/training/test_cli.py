"""Options are read without what a command runs on: help and complaints come at once."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from training.__main__ import COMMANDS, RENAMED, main
from training.cli import evaluate, export
from training.cli.fit import next_step, stopped
from training.evaluation import compare, corruptions
from training.evaluation.report import robustness
from training.export import prune

# Each takes seconds to import.
HEAVY = ["torch", "lightning", "torchvision", "onnxruntime", "openvino", "scipy", "matplotlib", "sklearn"]
PROGRAM = f"""
import json, sys
from training.__main__ import COMMANDS, _parser
for command in COMMANDS.values():
    command.add_arguments(_parser(command))
print(json.dumps(sorted(set(sys.modules) & set({HEAVY}))))
"""


def test_the_options_of_all_commands_import_nothing_that_takes_seconds() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize(
    ("command", "resume", "by_make", "said"),
    [
        ("fit", "auto", False, "python -m training fit: stopped; the same command goes on after"),
        ("all", "none", False, "python -m training all: stopped; the same command with --resume auto goes on after"),
        ("all", "auto", True, "make train: stopped; the same `make train` goes on after"),
        ("fit", "unfinished", True, "python -m training fit: stopped; the same command goes on after"),
    ],
    ids=["fit", "all-anew", "make-train", "make-pipeline"],
)
def test_a_stopped_run_says_which_command_goes_on(
    command: str, resume: str, by_make: bool, said: str, tmp_path: Path
) -> None:
    last = tmp_path / "last.ckpt"
    assert "no epoch was finished, so" in stopped(command, last, resume, by_make=by_make)
    last.touch()
    assert stopped(command, last, resume, by_make=by_make) == f"{said} the last finished epoch ({last})"


def test_a_wrong_option_is_refused_before_the_command_is_imported() -> None:
    program = "import runpy, sys; sys.argv = ['training', 'evaluate', '--nonsense']\ntry:\n"
    program += "    runpy.run_module('training', run_name='__main__')\nfinally:\n    print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "False\n")
    assert "python -m training evaluate" in done.stderr


def test_what_the_options_offer_is_what_the_commands_know() -> None:
    assert evaluate.SEVERITIES == corruptions.SEVERITIES
    assert evaluate.DEFAULT_SEVERITIES == robustness.DEFAULT
    assert evaluate.PRECISIONS == compare.PRECISIONS
    assert export.CHANNEL_MULTIPLE == prune.MULTIPLE


@pytest.mark.parametrize("old", RENAMED)
def test_the_former_name_of_a_command_prints_the_new_one(old: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([old, "--help"]) == 2
    assert f"`{RENAMED[old]}`" in capsys.readouterr().err
    assert RENAMED[old] in COMMANDS


def test_the_last_line_of_a_training_is_the_next_command() -> None:
    assert next_step(Path("model_store/mine-1.1")) == "model_store/mine-1.1; next: make archive MODEL=mine-1.1"
    elsewhere = "python -m training package --bundle 'my runs/a' --output model_store/a.mar"
    assert next_step(Path("my runs/a")) == f"my runs/a; next: {elsewhere}"
