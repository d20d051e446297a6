"""--resume unfinished, as the pipeline asks: a run goes on only while it is the same run."""

from dataclasses import replace
from pathlib import Path

from tests.unit.training import synthetic_images
from training.fit import run as runs
from training.fit.run import Run


def test_a_run_goes_on_only_with_its_own_recipe_and_division_and_until_it_ends(tmp_path: Path) -> None:
    recipe, run = synthetic_images.recipe(synthetic_images.image_folder(tmp_path / "data")), Run(tmp_path / "run")
    assert not runs.unfinished(recipe, run)
    runs.prepare(recipe, run, fresh=True)
    assert runs.unfinished(recipe, run)
    assert not runs.unfinished(replace(recipe, epochs=4), run)
    run.weights.touch()
    assert not runs.unfinished(recipe, run)


def test_a_manifest_that_was_written_anew_begins_another_run(tmp_path: Path) -> None:
    recipe, run = synthetic_images.recipe(synthetic_images.image_folder(tmp_path / "data")), Run(tmp_path / "run")
    runs.prepare(recipe, run, fresh=True)
    manifest = tmp_path / "manifest.csv"
    manifest.write_bytes(run.manifest.read_bytes())
    given = replace(recipe, data=replace(recipe.data, manifest=str(manifest)))
    other = Run(tmp_path / "other")
    runs.prepare(given, other, fresh=True)
    assert runs.unfinished(given, other)
    manifest.write_text(manifest.read_text().replace(",train,", ",val,", 1))
    assert not runs.unfinished(given, other)
