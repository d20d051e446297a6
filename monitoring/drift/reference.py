"""The reference: the validation images of a model as a sample, in ``drift.safetensors`` beside its card.

Built from the bundle's own manifest by `python -m monitoring drift reference`; bound to the bytes of the model that
answered, so that no window is ever compared with another model's reference.
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from monitoring.drift import sample as samples
from monitoring.drift.sample import FEATURES, Sample
from training.data import manifest as manifests
from training.data.datasets import Split
from training.data.manifest import Manifest
from visionserve.classifier import Classifier
from visionserve.errors import BundleError
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard

FILE_NAME = "drift.safetensors"
_LABEL, _STRATIFIED = "label", "stratified"


@dataclass(frozen=True)
class Reference:
    """The validation images, the labels that a prediction's index names, and the model's name and version.

    ``stratified`` says whether the validation split has the labels in the proportions of the whole data set; otherwise
    its label mix is a random draw itself.
    """

    sample: Sample
    labels: tuple[str, ...]
    name: str
    version: str
    stratified: bool = False

    def counts(self) -> np.ndarray:
        """Return how often each label was predicted, (C,)."""
        return np.bincount(self.sample.label, minlength=len(self.labels))


def build(bundle: Path, root: Path) -> tuple[Sample, bool]:
    """Classify the validation images of the bundle's manifest, which lie below ``root``.

    Returns:
        The sample, and whether the split is stratified.

    Raises:
        BundleError: an image is missing, changed or cannot be used.
    """
    classifier = samples.load_classifier(bundle)
    manifest = manifests.load(bundle / manifests.FILE_NAME, root, classifier.card.labels)
    return sample_split(classifier, bundle, root, "val")[0], is_stratified(manifest, "val")


def sample_split(classifier: Classifier, bundle: Path, root: Path, split: Split) -> tuple[Sample, np.ndarray]:
    """Return a split of the bundle's manifest as a sample, and the index of each image's true label (N,)."""
    manifest = manifests.load(bundle / manifests.FILE_NAME, root, classifier.card.labels)
    targets, indices = manifest.targets(), manifest.part(split)
    for index in indices:
        row = manifest.rows[index]
        if not (root / row.path).is_file() or manifests.hash_file(root / row.path) != row.sha256:
            raise BundleError(
                f"{root / row.path} is missing or differs from the image that the bundle's manifest names"
            )
    sample, unusable = samples.of_files(classifier, [root / manifest.rows[index].path for index in indices])
    if unusable:
        raise BundleError(f"{unusable[0][0]} cannot be used: {unusable[0][1]}")
    return sample, np.array([targets[index] for index in indices])


def files(bundle: Path, root: Path, split: Split) -> list[Path]:
    """Return the images of a split, in the order of the manifest."""
    manifest = manifests.load(bundle / manifests.FILE_NAME, root, ModelCard.load(bundle / CARD).labels)
    return [root / manifest.rows[index].path for index in manifest.part(split)]


def is_stratified(manifest: Manifest, split: Split) -> bool:
    """Return whether a split has each label in the proportion of the whole manifest, to within one image."""
    whole = Counter(row.label for row in manifest.rows)
    part = Counter(row.label for row in manifest.rows if row.split == split)
    share = part.total() / whole.total()
    return all(abs(part[label] - share * count) <= 1 for label, count in whole.items())


def save(sample: Sample, bundle: Path, *, stratified: bool) -> Path:
    """Write the reference of a bundle and return its file."""
    card = ModelCard.load(bundle / CARD)
    columns = {name: sample.features[name].astype(np.float32) for name in FEATURES}
    columns[_LABEL] = sample.label.astype(np.int32)
    path = bundle / FILE_NAME
    metadata = {"model_sha256": _digest(bundle, card), "features": json.dumps(FEATURES)}
    metadata["label_mix"] = _STRATIFIED if stratified else "drawn"
    save_file(columns, path, metadata=metadata)
    path.chmod(0o644)  # safetensors lets only the owner read it
    return path


def load(bundle: Path) -> Reference:
    """Read the reference of a bundle; a BundleError says what to do when there is none, or another model's."""
    card, path = ModelCard.load(bundle / CARD), bundle / FILE_NAME
    build_it = f"build it with `python -m monitoring drift reference --bundle {bundle} --data FOLDER`"
    if not path.is_file():
        raise BundleError(f"{bundle} has no {FILE_NAME}: {build_it}")
    try:
        with safe_open(path, framework="numpy") as file:
            columns = {name: samples.rounded(name, file.get_tensor(name)) for name in FEATURES}
            label, metadata = file.get_tensor(_LABEL).astype(np.int64), file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{path} cannot be read ({error}): {build_it}") from error
    if metadata.get("model_sha256") != _digest(bundle, card):
        raise BundleError(f"{path} belongs to another model: {build_it}")
    stratified = metadata.get("label_mix") == _STRATIFIED
    return Reference(Sample(columns, label), card.labels, card.name, card.version, stratified)


def _digest(bundle: Path, card: ModelCard) -> str:
    """SHA-256 of the network's file: with the card's temperature it is all that the answers depend on."""
    return f"{manifests.hash_file(bundle / card.model)}/{card.temperature}"
