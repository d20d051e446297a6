"""dvc.yaml: each stage depends on all the code that it runs, so a change of any of it runs the stage again."""

import ast
import functools
import re
from collections.abc import Iterator
from importlib.metadata import metadata
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
STAGES: dict[str, dict[str, list[str]]] = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
STARTS = {
    "prepare": ("training.data.prepare",),
    "fit": ("training.fit.trainer",),
    "export": ("training.bundle",),
    "evaluate": ("training.evaluation.evaluate", "training.evaluation.report.write"),
    "package": ("training.export.package",),
}
# Code that a stage imports and whose changes do not change what it makes.
ENGINES = ("visionserve/engines.py", "visionserve/torch_engine.py")
UNRELATED = {
    "prepare": {"training/machine.py": "warns when the memory is small"},
    "fit": {
        "training/fit/epoch_progress.py": "says how far it is",
        "training/tracking/": "logs and draws",
        "training/evaluation/": "drawn by tracking",
        "training/plotting.py": "drawn by tracking",
        "training/machine.py": "warns when the memory is small",
        **dict.fromkeys(ENGINES, "only the name of the file of weights"),
    },
    "export": {"training/machine.py": "warns when the memory is small"},
    "evaluate": {"training/machine.py": "warns when the memory is small"},
    "package": {},
}


def _file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def _needed(stage: str) -> set[str]:
    """Return the files of code that a stage imports, directly or not, without empty packages."""
    todo, needed = list(STARTS[stage]), set()
    while todo:
        file = _file(todo.pop())
        name = file.relative_to(ROOT).as_posix() if file is not None else ""
        if file is None or name in needed or name.startswith(tuple(UNRELATED[stage])):
            continue
        needed.add(name)
        todo += _imports(file)
    return {name for name in needed if len(ast.parse((ROOT / name).read_text(encoding="utf-8")).body) > 1}


@pytest.mark.parametrize("stage", STARTS)
def test_a_stage_depends_on_all_the_code_that_it_imports_and_on_no_other(stage: str) -> None:
    code = {dep for dep in STAGES[stage]["deps"] if dep.startswith(("training/", "visionserve", "handlers"))}
    folders = tuple(f"{dep}/" for dep in code if (ROOT / dep).is_dir())
    missing = {name for name in _needed(stage) if name not in code and not name.startswith(folders)}
    assert sorted(missing) == []
    assert sorted(dep for dep in code if (ROOT / dep).is_file() and dep not in _needed(stage)) == (
        ["handlers/image_handler.py"] if stage == "package" else []  # packed, not imported
    )


@pytest.mark.parametrize("stage", STARTS)
def test_what_is_left_out_is_really_imported(stage: str) -> None:
    """Or the list would hide what it does not name."""
    for name in UNRELATED[stage]:
        assert (ROOT / name).exists()


def test_the_buckets_of_the_document_are_those_that_dvc_knows() -> None:
    schemas = pytest.importorskip("dvc.config_schema", reason="DVC is not installed: make .venv/.train").REMOTE_SCHEMAS
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    kinds = set(re.findall(r"dvc\[(\w+)\]", text))
    assert kinds == {"s3", "gs", "azure"} <= set(metadata("dvc").get_all("Provides-Extra") or ())
    for kind, options in (
        ("s3", ["endpointurl"]),
        ("gs", ["credentialpath"]),
        ("azure", ["account_name", "connection_string"]),
    ):
        assert all(option in schemas[kind] and option in text for option in options)
        assert f"{kind}://" in text
