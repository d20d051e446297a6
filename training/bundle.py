"""Bundle: a finished run -> model_store/<name>/, everything that packaging and serving need, proven.

weights -> fp32 ONNX -> int8, calibrated on training photographs
-> embeddings of training and validation photographs -> reference statistics; validation logits -> temperature
-> gates on validation photographs -> figures and plots on test photographs -> card, golden answers
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from training import golden
from training import recipe as recipes
from training.data import manifest as manifests
from training.data.datamodule import served
from training.data.manifest import Manifest
from training.evaluation import evaluate as evaluation
from training.evaluation.calibration import fit_temperature
from training.evaluation.report import write as report
from training.export import acceptance
from training.export.gates import Finding
from training.export.onnx import export
from training.export.quantize import quantize
from training.fit.distillation import SEEN
from training.fit.run import Run, read_manifest
from training.networks import load_network
from training.recipe import Recipe
from visionserve import engines, novelty
from visionserve.classifier import Classifier
from visionserve.engines import WEIGHTS, Outputs
from visionserve.errors import BundleError
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import Input, ModelCard
from visionserve.network import MEAN, STD
from visionserve.novelty import Reference
from visionserve.transforms import Preprocessing

CALIBRATION = 512  # photographs whose activations set the int8 ranges; five per label of the flowers
_log = logging.getLogger(__name__)


def make(run: Run, bundle: Path) -> ModelCard:
    """Write the bundle of a finished run and return its card; an older bundle there is replaced only by a proven one.

    Raises:
        BundleError: the run is unfinished, photographs changed, or a gate failed (the message has the numbers).
    """
    if not run.weights.is_file():
        raise BundleError(f"{run.folder} has no weights.safetensors yet: let `python -m training fit` finish")
    recipe = recipes.load(run.recipe)
    manifest = read_manifest(run)
    with _replaced(bundle) as made:
        _halve(run.weights, made / WEIGHTS)
        _hand_down(run.seen, made)
        return _fill(made, _first_card(recipe, manifest), manifest, recipe.seed)


def resize(source: Path, root: Path, picture: Preprocessing, version: str, bundle: Path) -> ModelCard:
    """Write a bundle of the same weights for another input and return its card; ``bundle`` may be the source itself.

    Ranges, temperature, reference statistics, gates and figures are made anew: nothing of the old input stays.

    Args:
        root: the folder of the source's photographs.
        picture: the new input.

    Raises:
        BundleError: photographs changed, or a gate failed (the message has the numbers).
    """
    card = ModelCard.load(source / CARD)
    manifest = manifests.load(source / manifests.FILE_NAME, root, card.labels)
    served_as = replace(card.input, size=picture.size, crop=picture.crop)
    recipe = card.provenance["recipe"] | {"version": version, "input": asdict(picture)}
    provenance = card.provenance | {"recipe": recipe, "date": datetime.now(UTC).date().isoformat()}
    card = replace(card, version=version, input=served_as, temperature=1.0, metrics={}, provenance=provenance)
    with _replaced(bundle) as made:
        shutil.copy(source / WEIGHTS, made)
        _hand_down(source / SEEN, made)
        return _fill(made, card, manifest, int(recipe["seed"]))


@contextmanager
def _replaced(bundle: Path) -> Iterator[Path]:
    """Yield an empty folder that takes the place of ``bundle`` once it was filled without an error."""
    bundle.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=bundle.parent, prefix=".") as folder:
        made = Path(folder, "bundle")
        made.mkdir()
        yield made
        for file in made.rglob("*"):  # safetensors writes files that only their owner may read
            file.chmod(0o755 if file.is_dir() else 0o644)
        shutil.rmtree(bundle, ignore_errors=True)
        made.rename(bundle)


def _fill(bundle: Path, card: ModelCard, manifest: Manifest, seed: int) -> ModelCard:
    """Make everything that follows from the weights in ``bundle``, a first card and the photographs."""
    manifest.verify()
    manifest.save(bundle / manifests.FILE_NAME)
    card.save(bundle / CARD)
    with tempfile.TemporaryDirectory() as folder:
        fp32 = Path(folder, "fp32.onnx")
        _log.info("exporting, quantizing, calibrating")
        export(load_network(bundle), card.input, fp32)
        card, findings = _prove(card, manifest, bundle, fp32, seed)
    for finding in findings:
        _log.info("%s", finding)
    golden.write(bundle)
    _log.info("measuring on the test split")
    return _measure(card, manifest, bundle)


def outputs(model: Path, images: np.ndarray) -> Outputs:
    """Run an ONNX file over prepared images (N, S, S, 3), keeping logits and embedding; class maps are left empty."""
    engine = engines.load(model, threads=os.cpu_count() or 1)
    found = [engine.run(batch) for batch in evaluation.batches(images)]
    logits, points = (np.concatenate([getattr(item, name) for item in found]) for name in ("logits", "embedding"))
    return Outputs(logits, np.empty((0,), np.float32), points)


def calibration(images: np.ndarray, seed: int, count: int = CALIBRATION) -> Iterator[np.ndarray]:
    """Yield batches of a random choice of prepared images (N, S, S, 3)."""
    chosen = np.random.default_rng(seed).permutation(len(images))[:count]
    yield from evaluation.batches(images[np.sort(chosen)])


def _prove(card: ModelCard, manifest: Manifest, bundle: Path, fp32: Path, seed: int) -> tuple[ModelCard, list[Finding]]:
    """Quantize, calibrate, fit the reference statistics and open the gates; return the calibrated card."""
    preprocessing = Preprocessing(card.input.size, card.input.crop)
    train, train_targets = served(manifest, "train", preprocessing)
    val, val_targets = served(manifest, "val", preprocessing)
    quantize(fp32, calibration(train, seed), bundle / card.model)
    found = outputs(bundle / card.model, val)
    card = replace(card, temperature=round(fit_temperature(found.logits, val_targets), 4))
    card.save(bundle / CARD)
    learnt = outputs(bundle / card.model, train)
    Reference.fit(learnt.embedding, train_targets, found.embedding, found.logits).save(bundle / novelty.FILE_NAME)
    classifier = Classifier.load(bundle, threads=os.cpu_count() or 1)
    files = [manifest.root / manifest.rows[place].path for place in manifest.part("val")]
    findings = [
        acceptance.int8_gate(found.logits, outputs(fp32, val).logits, val_targets),
        acceptance.decode_gate(classifier, files),
    ]
    acceptance.require(findings)
    return card, findings


def _measure(card: ModelCard, manifest: Manifest, bundle: Path) -> ModelCard:
    """Evaluate on the test split and write the report, without photographs, and the final card."""
    data = evaluation.collect(bundle, manifest)
    sections = report.all_sections(data)
    report.write(bundle, data, sections, photographs=False)
    card = replace(card, metrics=report.headline(data, sections))
    card.save(bundle / CARD)
    return card


def _first_card(recipe: Recipe, manifest: Manifest) -> ModelCard:
    picture = Input(recipe.input.size, recipe.input.crop, MEAN, STD)
    return ModelCard(
        recipe.name,
        recipe.version,
        recipe.architecture,
        manifest.labels,
        picture,
        provenance=_provenance(recipe, manifest),
    )


def _provenance(recipe: Recipe, manifest: Manifest) -> dict[str, Any]:
    return {
        "trained_on": recipe.data_note,
        "initialised_from": recipe.init_note,
        "licence": recipe.licence,
        "recipe": _public(recipe),
        "manifest_sha256": manifest.digest,
        "photographs": {split: len(manifest.part(split)) for split in ("train", "val", "test")},
        "date": datetime.now(UTC).date().isoformat(),
        "train_your_own": "make train RECIPE=training/recipes/flowers102.yaml, or any folder of class folders: "
        "python -m training all --data.source imagefolder --data.root FOLDER --name NAME",
    }


def _public(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe without places of files, servers and devices: nothing that does not change the result."""
    content = recipes.plain(recipe)
    for place in ("root", "manifest"):
        content["data"].pop(place)
    for of_this_machine in ("machine", "tracking"):
        content.pop(of_this_machine)
    for told_elsewhere in ("init_note", "data_note", "licence"):
        content.pop(told_elsewhere)
    if recipe.teacher.bundle is not None:
        content["teacher"]["bundle"] = Path(recipe.teacher.bundle).name
    return content | {"init": Path(recipe.init).name}


def _hand_down(seen: Path, bundle: Path) -> None:
    """Keep the list of what the initial weights or the teacher have seen, if there is one: `fit --init` checks it."""
    if seen.is_file():
        shutil.copy(seen, bundle / SEEN)


def _halve(source: Path, target: Path) -> None:
    """Store weights in half precision; counters stay whole numbers."""
    weights = load_file(source)
    save_file({n: t.to(torch.float16) if t.is_floating_point() else t for n, t in weights.items()}, target)
