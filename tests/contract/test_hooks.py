"""`make hooks`: what git runs before a commit and before a push, by the real git and pre-commit on a small project."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
MAKEFILE = "lint:\n\techo lint >> ran\n\ttest ! -e broken\n\ntest-unit:\n\techo test-unit >> ran\n\ttest ! -e broken\n"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make: apt-get install make")


class Repository:
    """A repository with our hooks, whose targets only note that they ran, and fail while a file `broken` is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        who = {f"GIT_{role}_{what}": "a@b" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        self.environment |= who | {"PRE_COMMIT_HOME": str(folder.parent / "pre-commit"), "HOME": str(folder.parent)}

    def run(self, *command: str) -> int:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, timeout=60, check=False
        )
        return done.returncode

    def commit(self, name: str) -> int:
        (self.folder / name).write_text("x = 1\n")
        self.run("git", "add", name)
        return self.run("git", "commit", "-m", name)

    def ran(self) -> list[str]:
        """Return the targets that ran since the last question."""
        file = self.folder / "ran"
        lines = file.read_text().split() if file.exists() else []
        file.unlink(missing_ok=True)
        return lines


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    folder = tmp_path / "clone"
    folder.mkdir()
    (folder / "Makefile").write_text(MAKEFILE)
    shutil.copy(ROOT / ".pre-commit-config.yaml", folder)
    found = Repository(folder)
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    recipe = next(lines[number + 1] for number, line in enumerate(lines) if line.startswith("hooks:"))
    assert found.run("git", "init", "--initial-branch=main") == 0
    assert found.run("git", "add", "Makefile", ".pre-commit-config.yaml") == 0
    assert found.run("sh", "-c", recipe.strip().replace("$(BIN)", str(BIN))) == 0
    return found


def test_a_commit_of_code_is_linted_and_one_of_text_is_not(repository: Repository) -> None:
    assert repository.commit("text.md") == 0
    assert repository.ran() == []
    assert repository.commit("code.py") == 0
    assert repository.ran() == ["lint"]


def test_what_does_not_lint_is_not_committed(repository: Repository) -> None:
    (repository.folder / "broken").touch()
    assert repository.commit("code.py") != 0
    assert repository.ran() == ["lint"]
    assert repository.run("git", "rev-parse", "--verify", "HEAD") != 0


def test_a_push_runs_the_tests_that_start_no_server_and_one_that_fails_pushes_nothing(repository: Repository) -> None:
    assert repository.run("git", "init", "--bare", "../remote") == 0
    assert repository.commit("code.py") == 0
    repository.ran()
    (repository.folder / "broken").touch()
    assert repository.run("git", "push", "../remote", "main") != 0
    assert repository.ran() == ["test-unit"]
    (repository.folder / "broken").unlink()
    assert repository.run("git", "push", "../remote", "main") == 0
    assert repository.ran() == ["test-unit"]
