import json
from pathlib import Path

import pytest

from tests.unit.training import synthetic_images
from training import machine
from training import recipe as recipes
from training.__main__ import main
from training.fit import profile_report
from training.fit.profiler import Operator, Profile, StageProfile, profile
from training.fit.stopwatch import PARTS
from visionserve.errors import BundleError

# Lightning's own: parts of torch that it still uses.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def stage(loading: float, step: float, both: float) -> StageProfile:
    steps = [dict.fromkeys(PARTS, 0.01), dict.fromkeys(PARTS, 0.02)]
    return StageProfile(128, ("conv1",), [loading], [1.0], [step], [both], steps, [Operator("aten::mm", 0.5, 3)])


def test_a_profile_has_every_part_of_every_stage_and_trains_nothing(tmp_path: Path) -> None:
    recipe = synthetic_images.recipe(synthetic_images.image_folder(tmp_path / "colours"))
    recipes.save(recipe, tmp_path / "recipe.yaml")
    run = tmp_path / "runs" / "colours"
    assert (
        main(["fit", "-c", str(tmp_path / "recipe.yaml"), "--profile", "--profile-steps", "2", "--run", str(run)]) == 0
    )

    assert {path.name for path in run.iterdir()} == {"profile.md", "profile.json"}
    found = json.loads((run / "profile.json").read_text(encoding="utf-8"))
    assert [stage["size"] for stage in found["stages"]] == [24, 32]
    for measured in found["stages"]:
        for kind in ("cached", "decoded", "step", "both"):
            assert len(measured[kind]) == 3
            assert min(measured[kind]) > 0
        assert len(measured["parts"]) == 2
        # The last part is what the others leave of the step: below 0 they would overlap.
        assert all(tuple(step) == PARTS and min(step.values()) >= 0 for step in measured["parts"])
        assert any("conv" in operator["name"] for operator in measured["operators"])
        assert sum(operator["share"] for operator in measured["operators"]) <= 1
    table = (run / "profile.md").read_text(encoding="utf-8")
    assert all(f"| {part} |" in table for part in PARTS)
    assert found["memory"]["process"] > found["memory"]["cache"] > 0


@pytest.mark.parametrize(
    ("loading", "step", "both", "words"),
    [
        (500, 200, 195, "the step"),
        (150, 200, 148, "loading"),
        (200, 180, 90, "the step; they slow each other down: together 50 % of it"),
    ],
)
def test_the_slower_one_limits(loading: float, step: float, both: float, words: str) -> None:
    assert profile_report.limit(stage(loading, step, both), cache=True) == words


def test_without_the_cache_it_is_decoding_that_counts() -> None:
    assert profile_report.limit(stage(500, 200, 1), cache=False) == "loading"


def test_the_shares_of_a_step_add_up(tmp_path: Path) -> None:
    found = Profile("32-true", 2, [stage(300, 200, 150)], {"process": 10**9, "worker": 0, "cache": 0})
    text = profile_report.write(found, machine.facts(), synthetic_images.recipe(tmp_path), tmp_path)
    assert "| **a step** | 120.0 (100.0-140.0), 100 % |" in text
    assert "| 128 px, conv1 frozen | 300 (300-300) |" in text


def test_a_busy_machine_is_said_to_be_busy() -> None:
    facts = machine.facts()
    assert "busy" in machine.sentence(facts | {"load_before": 3.0})
    assert "busy" not in machine.sentence(facts | {"load_before": 0.1})


def test_a_profile_of_no_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="at least one step"):
        profile(synthetic_images.recipe(tmp_path), tmp_path, steps=0)
