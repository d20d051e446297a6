"""Options are read without what a command runs on: help and complaints come at once."""

import importlib
import json
import subprocess
import sys
from importlib.util import find_spec

from training.__main__ import COMMANDS
from training.evaluation import contenders, corruptions
from training.evaluation.report import robustness
from training.export import prune
from training.options import compare, evaluate
from training.options import prune as narrowing

# Each takes seconds to import.
HEAVY = ["torch", "lightning", "torchvision", "onnxruntime", "openvino", "scipy", "matplotlib", "sklearn"]
PROGRAM = f"""
import json, sys
from importlib import import_module
from training.__main__ import COMMANDS
for module, _ in COMMANDS.values():
    import_module("training.options." + module)
print(json.dumps(sorted(set(sys.modules) & set({HEAVY}))))
"""


def test_the_options_of_all_commands_import_nothing_that_takes_seconds() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_a_wrong_option_is_refused_before_the_command_is_imported() -> None:
    program = "import runpy, sys; sys.argv = ['training', 'evaluate', '--nonsense']\ntry:\n"
    program += "    runpy.run_module('training', run_name='__main__')\nfinally:\n    print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "False\n")
    assert "python -m training evaluate" in done.stderr


def test_every_command_has_options_and_something_that_runs() -> None:
    for module, _ in COMMANDS.values():
        assert callable(importlib.import_module(f"training.options.{module}").add_arguments)
        assert find_spec(f"training.commands.{module}") is not None


def test_what_the_options_offer_is_what_the_commands_know() -> None:
    assert evaluate.SEVERITIES == corruptions.SEVERITIES
    assert evaluate.USUAL == robustness.DEFAULT
    assert compare.PRECISIONS == contenders.PRECISIONS
    assert narrowing.MULTIPLE == prune.MULTIPLE
