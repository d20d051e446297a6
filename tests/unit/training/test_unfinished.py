"""--resume unfinished, as the pipeline asks: a run goes on only while it is the same run."""

from dataclasses import replace
from pathlib import Path

from tests.unit.training import drawn
from training import fit
from training.fit import Run


def test_a_run_goes_on_only_with_its_own_recipe_and_division_and_until_it_ends(tmp_path: Path) -> None:
    recipe, run = drawn.recipe(drawn.image_folder(tmp_path / "data")), Run(tmp_path / "run")
    assert not fit._unfinished(recipe, run)
    fit.prepare(recipe, run, anew=True)
    assert fit._unfinished(recipe, run)
    assert not fit._unfinished(replace(recipe, epochs=4), run)
    run.weights.touch()
    assert not fit._unfinished(recipe, run)


def test_a_manifest_that_was_written_anew_begins_another_run(tmp_path: Path) -> None:
    recipe, run = drawn.recipe(drawn.image_folder(tmp_path / "data")), Run(tmp_path / "run")
    fit.prepare(recipe, run, anew=True)
    manifest = tmp_path / "manifest.csv"
    manifest.write_bytes(run.manifest.read_bytes())
    given = replace(recipe, data=replace(recipe.data, manifest=str(manifest)))
    other = Run(tmp_path / "other")
    fit.prepare(given, other, anew=True)
    assert fit._unfinished(given, other)
    manifest.write_text(manifest.read_text().replace(",train,", ",val,", 1))
    assert not fit._unfinished(given, other)
