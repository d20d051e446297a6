"""The commands of the documents: every line of a fenced block that a reader would type.

A block with lines that begin with `$ ` shows a session: those lines are its commands, the others are answers. In every
other block without a language a line is a command when its first word is a program. Commands in the prose name
a program and often only some of its options.

A block whose commands no test runs says why in a comment above it: `<!-- not run: REASON -->`.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.repository import ROOT, tracked

# fmt: off
PROGRAMS = frozenset({
    "amtool", "bash", "cd", "curl", "docker", "git", "kind", "kubectl", "locust", "make", "nginx", "pip", "podman",
    "promtool", "python", "source", "torchserve", "visionserve",
})
# fmt: on
_BLOCK = re.compile(
    r"(?:^<!-- not run: (?P<reason>[^\n]+?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL
)
_INLINE = re.compile(r"(?<!`)`((?:make|python -m|visionserve) [^`]+)`(?!`)")
_SHELL = ("", "sh", "bash", "console", "shell")
_SETTING = re.compile(r"[A-Za-z_]+=.*")
_JOINTS = frozenset({"&&", "||", ";", "|", "&", "(", ")"})


@dataclass(frozen=True)
class Command:
    """One program call: its document, line and words, the whole line, and why it is not run if it says so."""

    document: str
    line: int
    words: tuple[str, ...]
    text: str
    not_run: str = ""

    def __str__(self) -> str:
        return f"{self.document}:{self.line}: {self.text}"


def documents() -> list[Path]:
    """Return every Markdown file of the repository, except the histories."""
    return [ROOT / name for name in tracked("*.md") if Path(name).name not in ("CHANGELOG.md", "LOG.md")]


def collect() -> list[Command]:
    """Return the commands of all documents."""
    return [command for document in documents() for command in read(document)]


def read(document: Path) -> list[Command]:
    """Return the commands of one document, in order."""
    text = document.read_text(encoding="utf-8")
    name = document.relative_to(ROOT).as_posix() if document.is_relative_to(ROOT) else document.name
    found: list[Command] = []
    for block in _BLOCK.finditer(text):
        if block["language"] not in _SHELL:
            continue
        first = text.count("\n", 0, block.start("text")) + 1
        for offset, line in _lines(block["text"]):
            found += [Command(name, first + offset, words, line, block["reason"] or "") for words in calls(line)]
    return found


def read_inline(document: Path) -> list[Command]:
    """Return the commands in the prose of a document; what stands for the reader's own (..., NAME) is left out."""
    text = document.read_text(encoding="utf-8")
    name = document.relative_to(ROOT).as_posix()
    prose = _BLOCK.sub(lambda block: "\n" * block[0].count("\n"), text)
    return [
        Command(name, prose.count("\n", 0, span.start()) + 1, words, span[1])
        for span in _INLINE.finditer(prose)
        for words in calls(span[1].replace("\n", " "))
    ]


def is_run(command: Command) -> bool:
    """Return whether tests/e2e/test_documents.py runs a command: the tutorial, and what needs only a flower service."""
    walked = ("docs/tutorial.md", "docs/releases.md")
    return (command.document in walked and not command.not_run) or asks_a_service(command)


def asks_a_service(command: Command) -> bool:
    """Return whether a command needs a running flower service at TorchServe's port, and nothing more."""
    text = command.text
    if command.words[0] == "curl":
        return ":8080/" in text and "/flowers" in text and "images/" not in text
    if command.words[:2] == ("make", "predict"):
        return "MODEL=" not in text and ":8000" not in text
    return False


def calls(line: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of each program call on a line; settings before a program, and redirections, are left out."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.commenters, lexer.whitespace_split = "#", True
    words: list[str] = []
    redirected = False
    for token in [*lexer, ";"]:
        if token in _JOINTS:
            if words:
                yield tuple(words)
            words = []
        elif redirected or set(token) <= {"<", ">"}:
            redirected = not redirected
        elif words or not _SETTING.fullmatch(token):
            words.append(token)


def _lines(block: str) -> Iterator[tuple[int, str]]:
    """Yield (offset, line) for the lines that are commands, continued lines joined."""
    lines = re.sub(r"\\\n\s*", lambda found: " " + "\0" * found[0].count("\n"), block).split("\n")
    session = any(line.startswith("$ ") for line in lines)
    offset = 0
    for line in lines:
        joined, plain = line.count("\0"), line.replace("\0", "").removeprefix("$ ")
        program = next((word for word in plain.split() if not _SETTING.fullmatch(word)), "")
        if line.startswith("$ ") or (not session and program in PROGRAMS and not line.startswith(" ")):
            yield offset, plain
        offset += 1 + joined
