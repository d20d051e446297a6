"""Recipes: typed, refused when wrong, and read from three places in one order."""

from pathlib import Path

import pytest

from training import recipe as recipes
from training.recipe import Input, Recipe, Stage
from visionserve.errors import BundleError

RECIPES = Path(__file__).parents[3] / "training" / "recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_recipe_can_be_read(path: Path) -> None:
    assert recipes.load(path).name == recipes.load(path).name.strip() != ""


def test_a_recipe_survives_being_written_and_read(tmp_path: Path) -> None:
    recipe = Recipe(epochs=7, stages=(Stage(0.25, 96, ("conv1", "bn1")), Stage(1.0, 128)), input=Input(128, 0.9))
    recipes.save(recipe, tmp_path / "recipe.yaml")
    assert recipes.load(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize(
    "text", ["epoch: 3", "data: {folder: x}", "optimizer: {lr: 0.1}"], ids=["top", "data", "optimizer"]
)
def test_an_unknown_key_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match="not a valid recipe"):
        recipes.load(tmp_path / "recipe.yaml")


def test_a_value_of_the_wrong_type_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("epochs: many", encoding="utf-8")
    with pytest.raises(BundleError, match="epochs"):
        recipes.load(tmp_path / "recipe.yaml")


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text("epochs: 2\nbatch_size: 3\nseed: 4\n", encoding="utf-8")
    monkeypatch.setenv("TRAIN_EPOCHS", "20")
    monkeypatch.setenv("TRAIN_BATCH_SIZE", "30")
    found = recipes.resolve(recipes.parser().parse_args(["--config", str(file), "--epochs", "200"]))
    assert (found.epochs, found.batch_size, found.seed) == (200, 30, 4)


@pytest.mark.parametrize(
    "ends", [(), (0.5,), (0.6, 0.4, 1.0), (0.0, 1.0)], ids=["none", "short", "disordered", "empty"]
)
def test_stages_that_do_not_fill_the_run_are_refused(ends: tuple[float, ...]) -> None:
    with pytest.raises(BundleError, match="stages"):
        Recipe(stages=tuple(Stage(end, 64) for end in ends))


def test_each_epoch_belongs_to_the_stage_that_its_middle_falls_in() -> None:
    recipe = Recipe(epochs=10, stages=(Stage(0.3, 96), Stage(0.8, 128), Stage(1.0, 160)))
    assert [recipe.stage(epoch).size for epoch in range(11)] == [96] * 3 + [128] * 5 + [160] * 3


def test_a_recipe_that_is_not_there_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        recipes.parser().parse_args(["--config", "none.yaml"])
    assert "recipe none.yaml does not exist" in capsys.readouterr().err


def test_an_unknown_key_in_the_file_of_the_command_line_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipe.yaml").write_text("epoch: 3", encoding="utf-8")
    with pytest.raises(SystemExit):
        recipes.parser().parse_args(["--config", str(tmp_path / "recipe.yaml")])
    assert "epoch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "option", "now"),
    [
        ("optimiser: {clip: 1.0}", "--optimiser.clip=1", "optimizer"),
        ("data: {broken: skip}", "--data.broken", "data.corrupt"),
    ],
)
def test_the_former_name_of_an_entry_is_refused_with_the_new_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, option: str, now: str
) -> None:
    (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match=f"is now called `{now}`"):
        recipes.load(tmp_path / "recipe.yaml")
    for arguments in (["--config", str(tmp_path / "recipe.yaml")], [option, "1"]):
        with pytest.raises(SystemExit, match="2"):
            recipes.parser().parse_args(arguments)
        assert f"is now called `{now}`" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["my model", "", "é", "-a", "a/b", "..", "a" * 101], ids=repr)
def test_a_name_that_cannot_be_served_is_refused_before_training(name: str) -> None:
    with pytest.raises(BundleError, match="cannot be served"):
        Recipe(name=name)
    with pytest.raises(BundleError, match="cannot be served"):
        Recipe(version=name)


@pytest.mark.parametrize(
    ("processes", "cuda", "cores", "expected"),
    [(1, False, 64, 1), (1, True, 64, 8), (1, True, 4, 4), (8, True, 32, 4), (8, True, 4, 0)],
)
def test_a_gpu_is_fed_by_its_share_of_the_cores(processes: int, cuda: bool, cores: int, expected: int) -> None:
    data = recipes.load(RECIPES / "flowers102.yaml").data
    assert data.loading_processes(processes, cuda=cuda, cores=cores) == expected
