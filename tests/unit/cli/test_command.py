import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli.conftest import Program, environment
from visionserve.cli.__main__ import parser


@pytest.mark.parametrize("command", [[], ["predict"], ["explain"], ["models"]])
def test_every_command_explains_itself(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args([*command, "--help"])
    assert ended.value.code == 0
    assert "usage: visionserve" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["predict"], ["explain", "x.jpg"]])
def test_wrong_use_is_exit_code_two(arguments: list[str], program: Program) -> None:
    done = program(*arguments)
    assert (done.returncode, "usage: visionserve" in done.stderr) == (2, True)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_is_a_script_that_its_shell_can_read(shell: str, program: Program) -> None:
    done = program("--print-completion", shell)
    assert done.returncode == 0
    assert "predict" in done.stdout
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True)


def test_the_command_is_installed_beside_python() -> None:
    command = Path(sys.executable).with_name("visionserve")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=False, cwd="/")
    assert done.stdout.startswith("visionserve "), done.stderr


def test_asking_a_service_imports_nothing_heavy() -> None:
    script = "import sys, visionserve.cli.__main__; print([n for n in ('torch', 'numpy', 'PIL') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment())
    assert done.stdout.strip() == "[]"


def test_the_old_name_of_the_doctor_prints_the_new_one(program: Program) -> None:
    done = program("doctor", "--archive", "model_store/flowers.mar")
    assert (done.returncode, done.stdout) == (2, "")
    assert "run `python -m launcher doctor`" in done.stderr
