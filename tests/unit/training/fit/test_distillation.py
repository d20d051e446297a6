"""Learning from a finished bundle: its weights, its answers, and what is refused."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy, interpolate

from tests.unit.training import synthetic_images
from tests.unit.training.markers import LIGHTNING
from training import finished
from training import recipe as recipes
from training.data import prepare as prepare_data
from training.data.datasets import Split
from training.data.manifest import Manifest, Row
from training.fit import distillation
from training.fit.module import Classification
from training.fit.run import Run, prepare
from training.fit.trainer import fit
from training.recipe import Augment, Data, Optimizer, Recipe, Stage, Teacher
from visionserve import network
from visionserve.errors import BundleError
from visionserve.model_card import Input, ModelCard

pytestmark = LIGHTNING
LABELS = tuple(synthetic_images.COLOURS)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A narrower ResNet-18 with random weights: every second channel of the last block's first convolution is gone."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    torch.manual_seed(0)
    weights = network.build("resnet18", len(LABELS)).state_dict()
    for name in ("conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var"):
        weights[f"layer4.1.{name}"] = weights[f"layer4.1.{name}"][::2].contiguous()
    weights["layer4.1.conv2.weight"] = weights["layer4.1.conv2.weight"][:, ::2].contiguous()
    save_file(weights, folder / "weights.safetensors")
    card = ModelCard("colours", "1", "resnet18", LABELS, Input(synthetic_images.SIDE, 0.9, network.MEAN, network.STD))
    card.save(folder / "card.json")
    return folder


def test_the_divergence_is_the_formula_of_the_paper() -> None:
    logits, wanted = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    ours = [math.exp(1) / (math.exp(1) + 1), 1 / (math.exp(1) + 1)]  # at temperature 2
    theirs = [1 / (math.exp(2) + 1), math.exp(2) / (math.exp(2) + 1)]
    by_hand = 4 * sum(t * math.log(t / o) for t, o in zip(theirs, ours, strict=True))
    assert float(distillation.divergence(logits, wanted, temperature=2.0)) == pytest.approx(by_hand, rel=1e-5)
    assert float(distillation.divergence(wanted, wanted, temperature=2.0)) == pytest.approx(0.0, abs=1e-6)


def test_the_loss_is_shared_between_labels_and_teacher(bundle: Path, tmp_path: Path) -> None:
    recipe = synthetic_images.recipe(
        tmp_path,
        architecture="resnet18",
        augment=Augment(mixup=0.0, cutmix=0.0),
        optimizer=Optimizer(label_smoothing=0.0),
        teacher=Teacher(str(bundle), share=0.25, temperature=2.0),
    )
    torch.manual_seed(1)
    module = Classification(recipe, len(LABELS)).eval()
    images, targets = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8), torch.tensor([0, 1, 2, 0])
    module.log = lambda *_, **__: None  # type: ignore[method-assign]  # no trainer is there to log to
    with torch.no_grad():
        inputs = module.prepare(images)
        logits = module.network(inputs)
        expected = 0.75 * cross_entropy(logits, targets) + 0.25 * module.distillation.loss(inputs, logits)
        torch.testing.assert_close(module.training_step((images, targets)), expected)
    assert not any(name.startswith("distillation") for name in module.state_dict())


def test_a_run_of_another_network_teaches_at_its_own_size(tmp_path: Path) -> None:
    """Of a network without class maps, whose bundle may not exist: a run that ended is enough."""
    root = synthetic_images.image_folder(tmp_path / "colours", 6)
    run = Run(tmp_path / "teacher")
    changes = {"epochs": 1, "architecture": "mobilenet_v3_small", "stages": (Stage(1.0, 32),), "data": data_of(root)}
    fit(synthetic_images.recipe(root, **changes), run)
    settings = Teacher(str(run.folder), share=0.5, size=32)
    loss = distillation.DistillationLoss(settings)
    images = torch.rand(2, 3, 24, 24)
    teacher = finished.load(run.folder)
    enlarged = interpolate(images, (32, 32), mode="bilinear", antialias=True)
    expected = distillation.divergence(torch.zeros(2, 3), teacher(enlarged), settings.temperature)
    torch.testing.assert_close(loss.loss(images, torch.zeros(2, 3)), expected)
    student = synthetic_images.recipe(root, epochs=1, teacher=settings, data=data_of(root))
    with pytest.raises(BundleError, match=r"was trained or chosen on .* images of this run"):
        fit(revised(student, seed=5), Run(tmp_path / "leak"))
    manifest = replace(student.data, manifest=str(run.manifest))
    fit(replace(student, data=manifest), Run(tmp_path / "student"))
    assert Run(tmp_path / "student").finished


def test_several_teachers_teach_the_mean_of_their_log_probabilities(bundle: Path, tmp_path: Path) -> None:
    root = synthetic_images.image_folder(tmp_path / "colours", 6)
    other = Run(tmp_path / "other")
    stages = (Stage(1.0, 32),)
    fit(
        synthetic_images.recipe(root, epochs=1, architecture="mobilenet_v3_small", stages=stages, data=data_of(root)),
        other,
    )
    settings = Teacher((str(bundle), str(other.folder)), size=32)
    images, logits = torch.rand(2, 3, 32, 32), torch.zeros(2, 3)
    first, second = (finished.load(folder)(images).softmax(dim=1) for folder in settings.folders)
    geometric = (first * second).sqrt()
    expected = distillation.divergence(logits, geometric.log(), settings.temperature)
    torch.testing.assert_close(distillation.DistillationLoss(settings).loss(images, logits), expected)
    recipe = synthetic_images.recipe(root, teacher=settings, data=data_of(root))
    recipes.save(recipe, tmp_path / "recipe.yaml")
    assert recipes.load(tmp_path / "recipe.yaml").teacher == settings
    with pytest.raises(BundleError, match="was trained or chosen on"):
        fit(revised(recipe, seed=5), Run(tmp_path / "leak"))


def test_a_run_that_has_not_ended_teaches_nothing(tmp_path: Path) -> None:
    recipes.save(synthetic_images.recipe(tmp_path), tmp_path / "recipe.yaml")
    with pytest.raises(BundleError, match="has not ended"):
        finished.card_of(tmp_path)


def data_of(root: Path) -> Data:
    return Data(source="imagefolder", root=str(root), seed=2, cache_side=40, workers=0)


def revised(recipe: Recipe, seed: int) -> Recipe:
    return replace(recipe, data=replace(recipe.data, seed=seed))


def test_a_run_goes_on_from_a_bundle_with_its_widths_and_its_head(bundle: Path, tmp_path: Path) -> None:
    root = synthetic_images.image_folder(tmp_path / "colours")
    # Below what float32 can hold: no weight moves by a bit.
    still = Optimizer(learning_rate=1e-60, head_epochs=0, average_decay=0.0)
    recipe = synthetic_images.recipe(
        root,
        architecture="resnet18",
        init=str(bundle),
        epochs=1,
        optimizer=still,
        teacher=Teacher(str(bundle)),
        stages=(Stage(1.0, 24, ("conv1",)),),
    )
    fit(recipe, Run(tmp_path / "run"))
    before, after = load_file(bundle / "weights.safetensors"), load_file(tmp_path / "run" / "weights.safetensors")
    trainable = [name for name in before if name.endswith((".weight", ".bias"))]
    assert all(torch.equal(after[name], before[name]) for name in trainable)
    assert after["layer4.1.conv1.weight"].shape[0] == 256


def test_a_bundle_of_other_labels_is_refused(bundle: Path, tmp_path: Path) -> None:
    card = ModelCard.load(bundle / "card.json")
    replace(card, labels=("blue", "green", "violet")).save(bundle / "card.json")
    root = synthetic_images.image_folder(tmp_path / "colours")
    for learning in ({"init": str(bundle)}, {"teacher": Teacher(str(bundle))}):
        with pytest.raises(BundleError, match="other labels"):
            fit(synthetic_images.recipe(root, architecture="resnet18", **learning), Run(tmp_path / "run"))


def test_a_bundle_of_another_normalisation_is_refused(bundle: Path) -> None:
    card = ModelCard.load(bundle / "card.json")
    other = replace(card.input, mean=network.IMAGENET_MEAN)
    replace(card, input=other).save(bundle / "card.json")
    with pytest.raises(BundleError, match="another normalisation"):
        distillation.check_labels(synthetic_images.recipe(bundle, init=str(bundle)), LABELS)


def test_a_teacher_that_is_not_there_is_refused(tmp_path: Path) -> None:
    recipe = synthetic_images.recipe(tmp_path, teacher=Teacher(str(tmp_path / "none")))
    with pytest.raises(BundleError, match="cannot read the model card"):
        distillation.check_labels(recipe, LABELS)


@pytest.mark.parametrize("way", ["init", "teacher"])
@pytest.mark.parametrize(("own", "theirs"), [("test", "train"), ("test", "val"), ("val", "train")])
def test_a_bundle_that_has_seen_a_test_or_validation_image_is_refused(
    bundle: Path, tmp_path: Path, way: str, own: Split, theirs: Split
) -> None:
    root = synthetic_images.image_folder(tmp_path / "colours")
    learning = {"init": str(bundle)} if way == "init" else {"teacher": Teacher(str(bundle))}
    recipe = synthetic_images.recipe(root, architecture="resnet18", epochs=1, **learning)
    one = next(row for row in _split(root).rows if row.split == own)
    other = Row("blue/other.png", "blue", theirs, one.sha256)  # the same file by another name
    Manifest(root, LABELS, (other,)).save(bundle / "manifest.csv")
    message = rf"trained or chosen on 1 of the \d+ .*{one.path} is one.*--data\.manifest"
    with pytest.raises(BundleError, match=message):
        fit(recipe, Run(tmp_path / "run"))
    assert not (tmp_path / "run" / "manifest.csv").exists()


def test_the_split_of_the_bundle_may_be_used_and_what_it_has_seen_is_handed_down(
    bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = synthetic_images.image_folder(tmp_path / "colours")
    own = _split(root)
    own.save(bundle / "manifest.csv")
    (bundle / "seen.txt").write_text("aa train\n")
    recipe = synthetic_images.recipe(root, init=str(bundle))
    with caplog.at_level("INFO"):
        prepare(recipe, Run(tmp_path / "run"), fresh=True)
    assert "by content: copies at another size or quality are not recognised" in caplog.text
    lines = dict(line.split() for line in (tmp_path / "run" / "seen.txt").read_text().splitlines())
    assert lines == {"aa": "train"} | {row.sha256: row.split for row in own.rows if row.split != "test"}

    # A bundle that was made from one that has seen a test image of ours.
    Manifest(root, LABELS, (Row("blue/other.png", "blue", "train", "aa"),)).save(bundle / "manifest.csv")
    (bundle / "seen.txt").write_text(next(f"{row.sha256} val\n" for row in own.rows if row.split == "test"))
    with pytest.raises(BundleError, match="was trained or chosen on 1 of"):
        prepare(recipe, Run(tmp_path / "other"), fresh=True)


def test_a_bundle_without_a_manifest_is_said_to_be_unchecked(
    bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = synthetic_images.image_folder(tmp_path / "colours")
    assert distillation.check_leak(synthetic_images.recipe(root, init=str(bundle)), _split(root)) == {}
    assert "has no manifest.csv" in caplog.text


def _split(root: Path) -> Manifest:
    return prepare_data.make(synthetic_images.recipe(root).data)[0]
