"""Bundle: a finished run -> model_store/<name>/, everything that packaging and serving need, checked.

weights -> fp32 ONNX -> int8, calibrated on training images; fp32 itself where few images make an int8 that fails
-> embeddings of training and validation images -> reference statistics; validation logits -> temperature
-> gates on training and validation images -> metrics and plots on test images -> card, golden outputs
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from training import golden
from training import recipe as recipes
from training.data import manifest as manifests
from training.data.cache import read
from training.data.datamodule import served
from training.data.manifest import SEEN, Manifest
from training.evaluation import curves
from training.evaluation import evaluate as evaluation
from training.evaluation.calibration import choose_temperature
from training.evaluation.report import external
from training.evaluation.report import write as report
from training.export import gates, parts
from training.export.gates import Finding
from training.export.onnx import export
from training.export.quantize import quantize
from training.export.replacement import replacement
from training.fit import probe as probes
from training.fit.run import Run, read_facts, read_further, read_manifest
from training.networks import load_network
from training.provenance import provenance
from training.recipe import Recipe
from visionserve import engines, novelty
from visionserve.classifier import Classifier
from visionserve.engines import WEIGHTS, Outputs
from visionserve.errors import BundleError
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import INT8, Input, ModelCard
from visionserve.network import MEAN, STD, has_class_maps
from visionserve.novelty import Reference
from visionserve.transforms import Preprocessing

# In a card's provenance: why it is not int8, why its temperature is 1.
SERVED_IN, NOT_FITTED = "served_in", "temperature_not_fitted"
CALIBRATION = 512  # images whose activations set the int8 ranges; five per label of the flowers
GATE_IMAGES = 1000  # training images at most on which int8 is compared with fp32, besides all validation images
FP32 = "model.fp32.onnx"
FEW_IMAGES = 1000  # of training and validation: with fewer, a network whose int8 fails its gates is served in fp32
WEAK_REFERENCE = 100  # validation images below which a novelty is a rank among too few
_log = logging.getLogger(__name__)


def make(run: Run, bundle: Path) -> ModelCard:
    """Write the bundle of a finished run and return its card; only one that passed the gates replaces an older one.

    Raises:
        BundleError: the run is unfinished, images changed, or a gate failed (the message has the numbers).
    """
    if not run.weights.is_file():
        raise BundleError(f"{run.folder} has no weights.safetensors yet: let `python -m training fit` finish")
    recipe = recipes.load(run.recipe)
    images = Images(read_manifest(run), read_further(run), _probe_right(run))
    with replacement(bundle) as folder:
        _halve(run.weights, folder / WEIGHTS)
        _hand_down(run.seen, folder)
        _hand_down(run.curves, folder)
        return _fill(folder, _first_card(recipe, images, run), images, recipe.seed)


def resize(
    source: Path,
    root: Path,
    preprocessing: Preprocessing,
    version: str,
    bundle: Path,
    roots: Mapping[str, Path] | None = None,
) -> ModelCard:
    """Write a bundle of the same weights for another input and return its card; ``bundle`` may be the source itself.

    Ranges, temperature, reference statistics, gates and metrics are made again: nothing of the old input stays.

    Args:
        root: the folder of the source's images.
        preprocessing: the new input.
        roots: name of a further source -> its folder; those of all that the bundle was trained on.

    Raises:
        BundleError: images changed, or a gate failed (the message has the numbers).
    """
    card = ModelCard.load(source / CARD)
    manifest = manifests.load(source / manifests.FILE_NAME, root, card.labels)
    images = Images(manifest, manifests.load_further(source, card.labels, roots or {}))
    served_as = replace(card.input, size=preprocessing.size, crop=preprocessing.crop)
    recipe = card.provenance["recipe"] | {"version": version, "input": asdict(preprocessing)}
    provenance = card.provenance | {"recipe": recipe, "date": datetime.now(UTC).date().isoformat()}
    provenance.pop(SERVED_IN, None)
    provenance.pop("baseline", None)  # of the other input
    card = replace(
        card,
        version=version,
        input=served_as,
        temperature=1.0,
        model=INT8,
        second_look=None,  # chosen for the other input
        parts=None,
        metrics={},
        provenance=provenance,
    )
    with replacement(bundle) as folder:
        shutil.copy(source / WEIGHTS, folder)
        _hand_down(source / SEEN, folder)
        return _fill(folder, card, images, int(recipe["seed"]))


@dataclass(frozen=True)
class Images:
    """What a bundle is made from and measured on: the first source, and further ones by name.

    ``probe_right`` (N,) bool says which of the first source's validation images the run's linear probe gets right.
    """

    first: Manifest
    further: dict[str, Manifest] = field(default_factory=dict)
    probe_right: np.ndarray | None = None

    @cached_property
    def joined(self) -> Manifest:
        """All of them as one manifest."""
        return manifests.joined([self.first, *self.further.values()])

    def balance(self) -> np.ndarray:
        """Return the weights (N,) of the joined validation images with which all sources count alike, 1 on average."""
        counts = [len(part.part("val")) for part in (self.first, *self.further.values())]
        counts = [count for count in counts if count]
        return np.concatenate([np.full(count, sum(counts) / len(counts) / count) for count in counts])


def _fill(bundle: Path, card: ModelCard, images: Images, seed: int) -> ModelCard:
    """Make everything that follows from the weights in ``bundle``, a first card and the images."""
    images.joined.verify()
    images.first.save(bundle / manifests.FILE_NAME)
    for name, manifest in images.further.items():
        manifest.save(manifests.further_file(bundle, name))
    card.save(bundle / CARD)
    with tempfile.TemporaryDirectory() as folder:
        fp32 = Path(folder, "fp32.onnx")
        _log.info("exporting, quantizing, calibrating")
        network = load_network(bundle)
        card = replace(card, heatmap=has_class_maps(network))
        if not card.heatmap:
            _log.warning("%s has no class maps, so this model has no heatmaps; its card says so", card.architecture)
        card.save(bundle / CARD)
        export(network, card.input, fp32)
        card, findings = _quantize_and_check(card, images, bundle, fp32, seed)
        card = parts.add(bundle, card, images.first, seed)
    for finding in findings:
        _log.info("%s", finding)
    golden.write(bundle)
    _log.info("measuring on the test split")
    return _measure(card, images, bundle)


def outputs(model: Path, images: np.ndarray) -> Outputs:
    """Run an ONNX file over prepared images (N, S, S, 3), keeping logits and embedding; class maps are left empty."""
    engine = engines.load(model, threads=os.cpu_count() or 1)
    results = [engine.run(batch) for batch in evaluation.batches(images)]
    logits, embedding = (np.concatenate([getattr(item, name) for item in results]) for name in ("logits", "embedding"))
    return Outputs(logits, np.empty((0,), np.float32), embedding)


def calibration(images: np.ndarray, seed: int, count: int = CALIBRATION) -> Iterator[np.ndarray]:
    """Yield batches of a random choice of prepared images (N, S, S, 3)."""
    sample = np.random.default_rng(seed).permutation(len(images))[:count]
    yield from evaluation.batches(images[np.sort(sample)])


def _quantize_and_check(
    card: ModelCard, sources: Images, bundle: Path, fp32: Path, seed: int
) -> tuple[ModelCard, list[Finding]]:
    """Quantize, calibrate, fit the reference statistics and run the gates; return the calibrated card.

    All sources count alike for the temperature and for the ranks of novelty, however many validation images they have.
    """
    manifest = sources.joined
    preprocessing = Preprocessing(card.input.size, card.input.crop)
    train, train_targets = served(manifest, "train", preprocessing)
    val, val_targets = served(manifest, "val", preprocessing)
    quantize(fp32, calibration(train, seed), bundle / card.model)
    int8_val, int8_train = (outputs(bundle / card.model, images) for images in (val, train))
    weights = sources.balance()
    card = _calibrated(card, bundle, (int8_train, train_targets), (int8_val, val_targets), weights)
    sample = np.sort(np.random.default_rng(seed).permutation(len(train))[:GATE_IMAGES])
    int8 = np.concatenate([int8_train.logits[sample], int8_val.logits])
    exact_val, exact_train = (outputs(fp32, images) for images in (val, train))
    exact = np.concatenate([exact_train.logits[sample], exact_val.logits])
    compared = gates.int8_gates(int8, exact, card.temperature)
    beside: list[Finding] = []
    if sources.probe_right is not None:
        first = slice(len(sources.probe_right))  # further sources come after them
        of_both = int8_val.logits[first], exact_val.logits[first]
        beside = gates.beside_probe(*of_both, val_targets[first], sources.probe_right)
    may_be_fp32 = len(train) + len(val) < FEW_IMAGES or not card.heatmap
    failed, behind = (any(not finding.passed for finding in findings) for findings in (compared, beside))
    compared += beside
    if (may_be_fp32 and failed) or (behind and not failed):
        card = _in_fp32(card, bundle, fp32, compared, len(train) + len(val))
        card, compared = _calibrated(card, bundle, (exact_train, train_targets), (exact_val, val_targets), weights), []
    classifier = Classifier.load(bundle, threads=os.cpu_count() or 1)
    files = (read(manifest.root / manifest.rows[index].path) for index in manifest.part("val"))
    findings = [*compared, gates.decode_gate(classifier, files)]
    gates.require(findings)
    return card, findings


def _probe_right(run: Run) -> np.ndarray | None:
    """Return which validation images (N,) bool a run's linear probe gets right; None without it, or of an old run."""
    right = probes.load(run.folder).val_right if run.probe.is_file() else None
    if right is None and run.probe.is_file():
        _log.warning(
            "%s keeps no answers of its probe: int8 is not compared with it. Train again to have that", run.folder
        )
    return None if right is None else right.numpy()


def _calibrated(
    card: ModelCard,
    bundle: Path,
    train: tuple[Outputs, np.ndarray],
    val: tuple[Outputs, np.ndarray],
    weights: np.ndarray,
) -> ModelCard:
    """Return the card with the temperature that fits outputs and label indices of validation; write the reference."""
    temperature, why_not = choose_temperature(val[0].logits, val[1], weights)
    provenance = {name: value for name, value in card.provenance.items() if name != NOT_FITTED}
    if why_not:
        provenance[NOT_FITTED] = why_not
        _log.warning("the temperature stays at 1: %s", why_not)
    card = replace(card, temperature=round(temperature, 4), provenance=provenance)
    card.save(bundle / CARD)
    reference = Reference.fit(train[0].embedding, train[1], val[0].embedding, val[0].logits, weights=weights)
    reference.save(bundle / novelty.FILE_NAME)
    if len(val[1]) < WEAK_REFERENCE:
        _log.warning(
            "the novelty reference is weak: a novelty is a rank among only %d validation images, so about one ordinary "
            "image in %d is called stranger than all of them",
            *(len(val[1]), len(val[1]) + 1),
        )
    return card


def _in_fp32(card: ModelCard, bundle: Path, fp32: Path, compared: list[Finding], count: int) -> ModelCard:
    """Replace the int8 network of a bundle by the fp32 one; return the card that says so, and why."""
    (bundle / card.model).unlink()
    shutil.copyfile(fp32, bundle / FP32)
    failed = "; ".join(str(finding) for finding in compared if not finding.passed)
    reason = (
        f"fp32, not int8: of {_reason(card, count)} int8 changes too much, or may ({failed}). It is about four times "
        "as large, and slower; more images make predictions that survive int8"
    )
    _log.warning("this model is served in %s", reason)
    return replace(card, model=FP32, provenance=card.provenance | {SERVED_IN: reason})


def _reason(card: ModelCard, count: int) -> str:
    if count < FEW_IMAGES:
        return f"a model of only {count} training and validation images"
    if card.heatmap:
        return "this model"
    return f"a network without class maps, {card.architecture},"


def _measure(card: ModelCard, images: Images, bundle: Path) -> ModelCard:
    """Evaluate on the test splits and write the report, without images, and the final card."""
    data = evaluation.collect(bundle, images.first)
    others = [external.Labelled.of_manifest(name, manifest) for name, manifest in images.further.items()]
    sections = [*report.all_sections(data), *([external.section(data, others)] if others else [])]
    sections += curves.sections(bundle, card)
    report.write(bundle, data, sections, photographs=False)
    card = replace(card, metrics=report.headline(data, sections))
    card.save(bundle / CARD)
    return card


def _first_card(recipe: Recipe, images: Images, run: Run) -> ModelCard:
    card_input = Input(recipe.input.size, recipe.input.crop, MEAN, STD)
    return ModelCard(
        recipe.name,
        recipe.version,
        recipe.architecture,
        images.first.labels,
        card_input,
        provenance=provenance(recipe, images.first, images.further, read_facts(run)),
    )


def _hand_down(file: Path, bundle: Path) -> None:
    """Keep a file if there is one: what initial weights or teacher have seen (`fit --init` checks it), the curves."""
    if file.is_file():
        shutil.copy(file, bundle)


def _halve(source: Path, target: Path) -> None:
    """Store weights in half precision; counters stay integers."""
    weights = load_file(source)
    save_file({n: t.to(torch.float16) if t.is_floating_point() else t for n, t in weights.items()}, target)
