import json
from pathlib import Path

import pytest

from loadtests.__main__ import main
from loadtests.gpu.command import MARKDOWN, PARTS
from tests.e2e.conftest import BUNDLE, E2E

pytestmark = E2E


def test_what_runs_on_a_gpu_machine_is_rehearsed_on_a_cpu(
    model_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A minute on an idle machine; a busy one may take what it needs."""
    archive, folder = model_store / "flowers.mar", tmp_path / "out"
    arguments = ["--quick", "--device=cpu", "--minutes=9", f"--bundle={BUNDLE}", f"--archive={archive}"]
    assert main(["gpu", *arguments, f"--output={folder}"]) == 0, (folder / MARKDOWN).read_text()
    contents = {name: json.loads((folder / f"{name}.json").read_text()) for name in PARTS}
    assert all(content["complete"] and content["rows"] for content in contents.values())
    rows = {row["what"]: row for content in contents.values() for row in content["rows"]}
    assert rows["8 connections"]["images_per_s"] > 0 and rows["8 connections"]["faults"] == 0
    agreement = next(row for what, row in rows.items() if "against fp32" in what)
    assert agreement["largest_difference"] < 0.5
    assert next(row for what, row in rows.items() if "killed" in what)["complete_s"] is not None
    recipe = [row["images_per_s"] for what, row in rows.items() if "the recipe" in what]
    slow = ["the recipe's training loop: it did not end in its time", "the recipe's training loop: no time left"]
    assert all(rate > 0 for rate in recipe) and (recipe or contents["training"]["left_out"][0] in slow)
    text = capsys.readouterr().out
    assert text.startswith("| part | measured | result |")
    nvjpeg = next(row for what, row in rows.items() if "nvJPEG" in what and "reference decode" in what)
    assert nvjpeg["same_label"] >= 0.995 and nvjpeg["levels"] < 1
    trained = [row for what, row in rows.items() if "a training run" in what]
    assert all(row["images_per_s"] > 0 and row["steps"] <= 3 * 10 for row in trained)  # three epochs of 40 images by 4
    assert trained or any("training" in entry for entry in contents["training"]["left_out"])
