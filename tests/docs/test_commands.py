"""Every command of every document exists, its target, module, options and files, and is run or says why it is not.

Those that need nothing but a service, and the whole tutorial, are run by tests/e2e/test_documents.py. Commands in the
prose are checked too, as far as they go.
"""

import functools
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from monitoring import __main__ as monitoring
from tests.docs.commands import Command, calls, collect, documents, is_run, read, read_inline
from tests.repository import ROOT
from training.__main__ import COMMANDS as COMMANDS_OF_TRAINING

pytestmark = pytest.mark.timeout(
    600
)  # a help that imports torch takes six seconds of CPU, and minutes on a busy machine
COMMANDS = collect()
MONITORING = [command for command in COMMANDS if command.words[:3] == ("python", "-m", "monitoring")]
INLINE = [command for document in documents() for command in read_inline(document)]
COMMANDS_OF_DRIFT = ("drift check", "drift reference", "drift study")
MAKEFILE = (ROOT / "Makefile").read_text()
# What a document may name without its being there: what is built, and what stands for something of the reader's.
BUILT = re.compile(r"\.mar$|\.ko$|^runs/|^model_store/(shapes|pets|mine|NAME)|[A-Z]{2,}|\*|\$")
PORTS = {"8000", "8080", "8081", "8082", "8083", "8443", "8501", "9090", "9093", "3000", "7070"}
PATHS = re.compile(
    r"^/?$|^/(predictions|explanations)/\w+(/[\w.]+)?$|^/(livez|readyz|metrics|models(/\w+)?|openapi\.yaml|drain|ping)$"
    r"|^/v1/models/\w+(:predict)?$|^/v2(/.*)?$|^/(-|api)/"
)


def of(program: str) -> list[Command]:
    return [command for command in [*COMMANDS, *INLINE] if command.words[0] == program]


def ids(commands: list[Command]) -> list[str]:
    return [f"{command.document}:{command.line}" for command in commands]


def for_each(program: str) -> Callable[[Callable[[Command], None]], pytest.MarkDecorator]:
    found = of(program)
    return pytest.mark.parametrize("command", found, ids=ids(found))


def test_the_documents_hold_commands_of_every_kind() -> None:
    assert len(of("make")) > 10
    assert len(of("curl")) > 5
    assert {command.document for command in COMMANDS} >= {"README.md", "docs/tutorial.md", "docs/monitoring.md"}


@pytest.mark.parametrize("command", COMMANDS, ids=ids(COMMANDS))
def test_a_command_is_run_by_a_test_or_says_why_not(command: Command) -> None:
    assert is_run(command) or command.not_run, (
        f"{command}: no test runs it; put <!-- not run: REASON --> above its block, or run it in "
        "tests/e2e/test_documents.py"
    )


@pytest.mark.parametrize("command", COMMANDS, ids=ids(COMMANDS))
def test_files_that_a_command_names_exist(command: Command) -> None:
    tops = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    for word in command.words[1:]:
        path = word.partition("=")[2] or word
        if path.split("/")[0] in tops and "/" in path and not BUILT.search(path):
            assert (ROOT / path).exists(), f"{command}: there is no {path}"


@for_each("make")
def test_make_has_the_target_and_its_program_the_options(command: Command) -> None:
    targets = [word for word in command.words[1:] if "=" not in word and not word.startswith("-")]
    settings = dict(word.split("=", 1) for word in command.words[1:] if "=" in word and not word.startswith("-"))
    for target in targets or ["help"]:
        recipe = re.search(rf"^{re.escape(target)}:.*\n((?:\t.*\n)*)", MAKEFILE, re.MULTILINE)
        if target.startswith(".venv/."):
            assert target.removeprefix(".venv/.") in MAKEFILE
            continue
        assert recipe is not None, f"{command}: the Makefile has no target {target}"
        for name in settings:
            assert f"$({name}" in MAKEFILE, f"{command}: the Makefile knows no {name}"
        if "ARGS" in settings:
            assert "$(ARGS)" in recipe[1], f"{command}: {target} takes no ARGS"
            check_options(command, program_of(recipe[1]), next(calls(f"x {settings['ARGS']}"))[1:])


@for_each("python")
def test_python_has_the_module_and_the_module_the_options(command: Command) -> None:
    assert command.words[1] == "-m", f"{command}: documents run modules"
    check_options(command, command.words[1:3], command.words[3:])


@pytest.mark.parametrize("command", MONITORING, ids=ids(MONITORING))
def test_a_command_of_monitoring_is_no_usage_error(command: Command) -> None:
    """Its options may exist and the command be incomplete all the same: `drift check` needs a log or images."""
    assert monitoring._parser().parse_args(command.words[3:]).run


@for_each("visionserve")
def test_the_visionserve_command_has_the_options(command: Command) -> None:
    check_options(command, ("-m", "visionserve.cli"), command.words[1:])


@for_each("curl")
def test_curl_asks_a_path_that_is_served(command: Command) -> None:
    urls = [re.match(r"https?://([^:/]+)(?::(\w+))?(/[^?]*)?", word) for word in command.words]
    found = [url for url in urls if url is not None]
    assert found, f"{command}: curl asks nobody"
    for url in found:
        if url[1] in ("127.0.0.1", "localhost"):
            assert url[2] in PORTS, f"{command}: nothing listens on {url[2]}"
        assert PATHS.match(url[3] or "/"), f"{command}: {url[3]} is not served"


def test_a_reason_belongs_to_the_block_below_it(tmp_path: Path) -> None:
    block = "```\nmake a\n```\n"
    (tmp_path / "some.md").write_text(f"<!-- not run: it is slow -->\n{block}{block}<!-- not run: far -->\n\n{block}")
    assert [command.not_run for command in read(tmp_path / "some.md")] == ["it is slow", "", ""]


def test_a_block_is_read_as_a_reader_would(tmp_path: Path) -> None:
    (tmp_path / "some.md").write_text(
        "```\n$ make predict   # a comment\n  make it so\n```\n```python\nmake = 1\n```\n"
        "```\nX=1 make a && make b ARGS='--one two' \\\n    C=3 > out\nother line\npython -m x\n```\n"
    )
    found = read(tmp_path / "some.md")
    assert [(command.line, command.words) for command in found] == [
        (2, ("make", "predict")),
        (9, ("make", "a")),
        (9, ("make", "b", "ARGS=--one two", "C=3")),
        (12, ("python", "-m", "x")),
    ]


def program_of(recipe: str) -> tuple[str, ...]:
    """Return what a recipe starts: ("-m", module, command...), or (script,)."""
    started = re.findall(r"python (-m [\w.]+(?: [a-z]+)?|\S+\.py)", recipe) or re.findall(r"(\S+\.(?:sh|py)) ", recipe)
    return tuple(started[-1].split()) if started else ()


def check_options(command: Command, program: tuple[str, ...], words: tuple[str, ...]) -> None:
    """Assert that every long option stands in the program's help."""
    options = [word.split("=")[0] for word in words if word.startswith("--")]
    if not program or not options:
        return
    named = 2 if " ".join(words[:2]) in {*COMMANDS_OF_TRAINING, *COMMANDS_OF_DRIFT} else 1
    text = help_of(*program, *(words[:named] if words and re.fullmatch(r"[a-z][a-z-]*", words[0]) else ()))
    for option in options:
        table = option.rpartition(".")[0]  # --data.roots.NAME is an entry of --data.roots, which the help calls a dict
        entry = bool(table) and re.search(rf"{re.escape(table)} [A-Z_]+\n(?:.*\n){{0,3}}.*dict\[", text)
        assert entry or re.search(rf"{re.escape(option)}\b", text), f"{command}: {' '.join(program)} has no {option}"


@functools.cache
def help_of(*program: str) -> str:
    done = subprocess.run(
        [sys.executable, *program, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, f"{' '.join(program)} --help: {done.stderr}"
    return done.stdout
