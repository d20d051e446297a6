import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from visionserve.errors import BundleError
from visionserve.model_card import Input, ModelCard

CARD = ModelCard(
    name="shapes",
    version="1.0",
    architecture="resnet18",
    labels=("circle", "square"),
    input=Input(32, 0.875, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)),
    temperature=1.5,
    metrics={"top1": 0.96},
    provenance={"licence": "CC0-1.0"},
)


def test_a_saved_card_loads_as_it_was(tmp_path: Path) -> None:
    CARD.save(tmp_path / "card.json")
    loaded = ModelCard.load(tmp_path / "card.json")
    assert loaded == CARD
    assert loaded.digest == CARD.digest


def test_any_change_of_the_card_changes_its_digest() -> None:
    assert replace(CARD, temperature=1.6).digest != CARD.digest


def written(folder: Path, change: dict[str, Any], drop: str = "") -> Path:
    CARD.save(folder / "card.json")
    content = json.loads((folder / "card.json").read_text()) | change
    content.pop(drop, None)
    (folder / "card.json").write_text(json.dumps(content))
    return folder / "card.json"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        pytest.param({"temprature": 2}, "unknown entries: temprature", id="unknown entry"),
        pytest.param({"temperature": 0}, "temperature must be above 0", id="zero temperature"),
        pytest.param({"labels": ["one"]}, "two or more labels", id="one label"),
        pytest.param({"labels": ["one", "one"]}, "each once", id="label twice"),
        pytest.param({"device": "tpu"}, "device must be", id="unknown device"),
        pytest.param(
            {"input": {"size": 32, "crop": 1, "mean": [0, 0], "std": [1, 1, 1]}}, "wrong type", id="two means"
        ),
        pytest.param({"input": {"size": 32}}, "missing", id="incomplete input"),
        pytest.param({"input": 32}, "expected a JSON object", id="input is a number"),
    ],
)
def test_a_card_with_a_wrong_entry_is_refused(tmp_path: Path, change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BundleError, match=complaint):
        ModelCard.load(written(tmp_path, change))


def test_a_card_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="name"):
        ModelCard.load(written(tmp_path, {}, drop="name"))


def test_a_missing_card_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot read the model card .*card\.json"):
        ModelCard.load(tmp_path / "card.json")
