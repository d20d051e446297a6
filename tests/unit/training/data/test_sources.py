"""Several sources in one run (`data.more`): weights, splits, copies across sources, and what a run remembers."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from tests.unit.training import synthetic_images
from tests.unit.training.markers import LIGHTNING
from training.data import prepare
from training.data.datamodule import EpochSampler, ImageDataModule, Portion
from training.data.manifest import joined
from training.fit.run import Run, read_further, read_manifest
from training.fit.run import prepare as prepare_run
from training.fit.trainer import fit
from training.recipe import Recipe, Source
from visionserve.errors import BundleError

pytestmark = LIGHTNING


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    first = synthetic_images.recipe(synthetic_images.image_folder(tmp_path / "colours"))
    root, _ = synthetic_images.labelled_folder(tmp_path / "web")
    web = Source("web", root=str(root), weight=2.0, held_out=0.2)
    plain = replace(first.augment, policy="none", mixup=0.0, cutmix=0.0)
    return replace(first, augment=plain, data=replace(first.data, weight=0.5, more=(web,)))


def test_an_epoch_shows_each_source_as_often_as_its_weight_says(recipe: Recipe) -> None:
    sampler = EpochSampler([Portion([*range(40)], 0.5), Portion([*range(100, 110)], 2.25)], recipe)
    assert len(sampler) == 20 + 22
    epochs = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        counts = Counter(sample.row for sample in sampler)
        assert sum(counts[row] for row in range(40)) == 20
        assert all(counts[row] in (2, 3) for row in range(100, 110))
        epochs.append({row for row in counts if row < 40})
    assert epochs[0] != epochs[1]  # another half each time
    sampler.set_epoch(0)
    assert {sample.row for sample in sampler if sample.row < 40} == epochs[0]


def test_batches_hold_the_pixels_and_labels_of_all_sources(recipe: Recipe, tmp_path: Path) -> None:
    first, _ = prepare.make(recipe.data)
    (_, web, _), *_ = prepare.make_further(recipe.data, first)
    images = ImageDataModule(recipe, [first, web], tmp_path / "cache")
    images.setup("fit")
    whole = joined([first, web])
    batches = list(images.train_dataloader())
    shown = sum(len(targets) for _, targets in batches)
    assert shown == (round(len(first.part("train")) / 2) + 2 * len(web.part("train"))) // 8 * 8
    for pixels, targets in batches:  # blue, green, red: a label's own channel is the brightest
        assert torch.equal(pixels.float().mean((1, 2)).argmax(1), 2 - targets)
    validated = list(images.val_dataloader())
    assert images.validated() == [len(first.part("val")), len(web.part("val"))]
    targets = torch.cat([targets for _, targets in validated])
    assert targets.tolist() == [whole.targets()[row] for row in whole.part("val")]


def test_a_run_validates_each_source_and_takes_their_mean(recipe: Recipe, tmp_path: Path) -> None:
    run, metrics = Run(tmp_path / "run"), Metrics()
    accuracy = fit(replace(recipe, epochs=1), run, callbacks=[metrics])
    of_each = [metrics.last[f"val/accuracy_{name}"] for name in ("first", "web")]
    assert accuracy == pytest.approx(sum(of_each) / 2, abs=1e-6)
    web = read_further(run)["web"]
    sides = {group: {row.split for row in web.rows if row.group == group} for group in {row.group for row in web.rows}}
    assert all(len(side) == 1 for side in sides.values())


class Metrics(Callback):
    """Keeps what the last validation logged."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        self.last = {name: float(value) for name, value in trainer.callback_metrics.items()}


def test_a_copy_in_another_split_of_the_first_source_is_left_out(recipe: Recipe) -> None:
    first, _ = prepare.make(recipe.data)
    (_, web, _), *_ = prepare.make_further(recipe.data, first)
    tested = next(row for row in first.rows if row.split == "test")
    trained = next(row for row in web.rows if row.split == "train")
    shutil.copy(first.root / tested.path, web.root / trained.path)
    (_, after, left_out), *_ = prepare.make_further(recipe.data, first)
    assert trained.path not in {row.path for row in after.rows}
    assert (trained.path, prepare.COPY_ELSEWHERE) in {(file.path, file.reason) for file in left_out}
    assert len(after.rows) >= len(web.rows) - 2


def test_a_run_goes_on_only_while_its_further_images_are_there(recipe: Recipe, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    prepare_run(recipe, run, fresh=True)
    assert read_manifest(run).root != read_further(run)["web"].root
    changed = read_further(run)["web"]
    synthetic_images.image((1, 2, 3), 99).save(changed.root / changed.rows[0].path)
    with pytest.raises(BundleError, match=r"is missing or changed since the manifest was written; bring it back"):
        prepare_run(recipe, run, fresh=False)


def test_another_weight_is_another_run(recipe: Recipe, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    prepare_run(recipe, run, fresh=True)
    other = replace(recipe, data=replace(recipe.data, more=(replace(recipe.data.more[0], weight=3.0),)))
    with pytest.raises(BundleError, match=r"was begun with data\.more\.0\.weight 2\.0, not 3\.0"):
        prepare_run(other, run, fresh=False)


def test_where_a_further_source_lies_is_asked_for(recipe: Recipe) -> None:
    nowhere = replace(recipe.data, more=(Source("web"),))
    first, _ = prepare.make(recipe.data)
    with pytest.raises(BundleError, match=r"learns from web too: say where it is with --data\.roots\.web"):
        prepare.make_further(nowhere, first)
    further = replace(nowhere, roots={"web": str(recipe.data.more[0].root)})
    assert prepare.make_further(further, first)[0][1].rows


def test_a_label_that_the_first_source_does_not_have_is_named(recipe: Recipe) -> None:
    first, _ = prepare.make(recipe.data)
    root = Path(str(recipe.data.more[0].root))
    text = (root / "labels.csv").read_text(encoding="utf-8")
    (root / "labels.csv").write_text(text.replace("0,blue", "9,violet"), encoding="utf-8")
    with pytest.raises(BundleError, match=r"has 'violet', which is none of the 3 labels"):
        prepare.make_further(recipe.data, first)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"more": (Source("a"), Source("a"))}, "needs a name of its own"),
        ({"roots": {"b": "x"}}, r"data\.roots names b, which is not among data\.more"),
        ({"weight": 0.0}, r"data\.weight must be above 0"),
    ],
)
def test_impossible_sources_are_refused(recipe: Recipe, change: dict[str, object], sentence: str) -> None:
    with pytest.raises(BundleError, match=sentence):
        replace(recipe.data, **change)  # type: ignore[arg-type]
