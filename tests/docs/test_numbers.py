"""The numbers in documents are those of the files that hold them."""

import re
from pathlib import Path

import pytest

from scripts import update_docs
from training.export import gates


@pytest.mark.parametrize("path", update_docs.DOCUMENTS, ids=lambda path: path.name)
def test_a_document_says_what_the_measurements_say(path: Path) -> None:
    text = path.read_text()
    assert update_docs.filled(text) == text, "run `python -m scripts.update_docs`"


def test_every_block_is_used_and_known() -> None:
    used = {name for path in update_docs.DOCUMENTS for name in re.findall(r"<!-- ([a-z-]+) -->", path.read_text())}
    assert used - {"end"} == set(update_docs.BLOCKS)


def test_a_stale_block_is_written_anew() -> None:
    stale = "before\n<!-- accuracy -->\nnonsense\n<!-- end -->\nafter\n"
    fresh = update_docs.filled(stale)
    assert "nonsense" not in fresh
    assert fresh.startswith("before\n<!-- accuracy -->\n| test split |")
    assert fresh.endswith("|\n<!-- end -->\nafter\n")


def test_the_counts_of_images_under_which_one_label_may_change_follow_from_the_gates() -> None:
    text = (update_docs.ROOT / "docs" / "evaluation.md").read_text()
    assert round(1 / gates.INT8_CHANGED) == gates.INT8_LEAST
    for count in (gates.INT8_LEAST, round(1 / gates.DECODE_CHANGED)):
        assert f"fewer than {count} images" in " ".join(text.split())


FIGURE = re.compile(r"\| \d[\d.,]* ?(%|GB|MB)( \([\d.-]+\))? \|")  # a cell that holds nothing else


@pytest.mark.parametrize("name", ["evaluation.md", "operations.md"])
def test_a_table_of_figures_is_generated_or_says_when_it_was_measured(name: str) -> None:
    text = (update_docs.ROOT / "docs" / name).read_text()
    text = re.sub(r"<!-- [a-z-]+ -->\n.*?<!-- end -->", "", text, flags=re.DOTALL)
    sections = [section for section in re.split(r"(?m)^(?=## )", text) if FIGURE.search(section)]
    assert sections
    undated = [section.splitlines()[0] for section in sections if not re.search(r"20\d\d-\d\d-\d\d", section)]
    assert not undated, "say by which command, when and on which machine, or generate the table by scripts.update_docs"
