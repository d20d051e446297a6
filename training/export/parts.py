"""Parts: one more convolution on the served network's last feature maps, which names the part of a bird at each place.

    part locations of training images -> the part nearest to each place of the feature maps, within the bird
    features at these places -> multinomial logistic regression -> Conv 1 x 1 beside the one that makes the class maps
    test images -> share whose named part, at the heatmap's maximum, is the nearest one

It is fitted on what the finished file itself computes, int8 or fp32, and changes nothing of its other outputs. Only
CUB-200-2011 has part locations; other bundles are left as they are.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file
from torch.nn.functional import cross_entropy

from training.data.datasets import Split, cub200
from training.data.datasets.cub200 import Annotation, Box
from training.data.manifest import Manifest
from training.evaluation import pointing_game
from training.evaluation.geometry import Position, View
from visionserve import engines, part_layer
from visionserve.classifier import Classifier
from visionserve.engines import PART_MAPS
from visionserve.heatmap import peak
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard, Parts

IMAGES = 2000  # of the training split at most: a hundred thousand places
WEIGHT_DECAYS = (0.003, 0.01, 0.03, 0.1)  # the one with the lowest loss on validation images is taken
_BATCH = 16
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Places:
    """Places of feature maps: their features (N, D) float32, and the index of the nearest part (N,)."""

    features: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class Layer:
    """A linear layer from features (D,) to logits (P,)."""

    weight: np.ndarray
    bias: np.ndarray

    def loss(self, places: Places) -> float:
        """Return the cross entropy, in nats."""
        logits = torch.from_numpy(places.features @ self.weight.T + self.bias)
        return float(cross_entropy(logits, torch.from_numpy(places.targets)))


def add(bundle: Path, card: ModelCard, manifest: Manifest, seed: int = 0) -> ModelCard:
    """Give a bundle's network part maps, if its images have part locations; return the card, which is saved."""
    if not card.heatmap or not cub200.has_parts(manifest.root):
        return card
    annotations = cub200.annotations(manifest.root)
    names = sorted({cub200.region(part) for note in annotations.values() for part in note.parts if part.visible})
    if len(names) < 2 or not {row.path for row in manifest.rows} <= annotations.keys():
        return card
    train, val = (_places(bundle, card, manifest, annotations, names, split, seed) for split in ("train", "val"))
    layers = [fit(train, len(names), decay) for decay in WEIGHT_DECAYS]
    chosen = min(layers, key=lambda layer: layer.loss(val))
    store(bundle, card, chosen)
    card = replace(card, parts=Parts(tuple(names), 0.0, 0))
    card.save(bundle / CARD)
    right = list(_named_right(bundle, manifest, annotations))
    card = replace(card, parts=Parts(tuple(names), round(float(np.mean(right)), 4), len(right)))
    card.save(bundle / CARD)
    _log.info("parts: %s; the one under the heat is right in %.1f %% of %d test images", *_stated(card.parts))
    return card


def fit(places: Places, parts: int, weight_decay: float) -> Layer:
    """Return the logistic regression of standardised features; ``weight_decay`` is that of the sum of squares."""
    features, targets = torch.from_numpy(places.features), torch.from_numpy(places.targets)
    mean, spread = features.mean(0), features.std(0) + 1e-6
    scaled = (features - mean) / spread  # (N, D)
    weight = torch.zeros(parts, features.shape[1], requires_grad=True)
    bias = torch.zeros(parts, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(scaled @ weight.T + bias, targets) + weight_decay * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    folded = (weight / spread).detach()
    return Layer(folded.numpy(), (bias.detach() - folded @ mean).numpy())


def store(bundle: Path, card: ModelCard, layer: Layer) -> None:
    """Put the layer into a bundle's network, and into a file of its own, from which an archive for a GPU is made."""
    append(bundle / card.model, layer)
    save_file({"weight": layer.weight, "bias": layer.bias}, bundle / part_layer.FILE_NAME)


def append(model: Path, layer: Layer) -> None:
    """Add the output `part_maps` to an ONNX file: the layer at each place of what its class maps are made of."""
    content = onnx.load(model)
    graph = content.graph
    weight, bias = f"{PART_MAPS}.weight", f"{PART_MAPS}.bias"
    graph.initializer.append(numpy_helper.from_array(layer.weight[:, :, None, None].astype(np.float32), weight))
    graph.initializer.append(numpy_helper.from_array(layer.bias.astype(np.float32), bias))
    node = helper.make_node("Conv", [_features_of(graph), weight, bias], [PART_MAPS], PART_MAPS, kernel_shape=[1, 1])
    graph.node.append(node)
    maps = next(output for output in graph.output if output.name == "class_maps")
    batch, _, height, width = (dim.dim_param or dim.dim_value for dim in maps.type.tensor_type.shape.dim)
    shape = [batch, len(layer.bias), height, width]
    graph.output.append(helper.make_tensor_value_info(PART_MAPS, TensorProto.FLOAT, shape))
    onnx.checker.check_model(content, full_check=True)
    onnx.save(content, model)


def _features_of(graph: onnx.GraphProto) -> str:
    """Return the name of the tensor (B, D, h, w) of which a convolution makes the class maps."""
    return next(str(node.input[0]) for node in graph.node if node.op_type == "Conv" and "class_maps" in node.output)


def _places(
    bundle: Path,
    card: ModelCard,
    manifest: Manifest,
    annotations: dict[str, Annotation],
    names: Sequence[str],
    split: Split,
    seed: int,
) -> Places:
    """Return the places of a split's images that lie on the bird."""
    chosen = np.random.default_rng(seed).permutation(manifest.part(split))[:IMAGES]
    features, targets = [], []
    for path, maps, view in _feature_maps(bundle, card, manifest, [int(index) for index in chosen]):
        for row, column, region in _regions(view, annotations[path], maps.shape[1:]):
            features.append(maps[:, row, column])
            targets.append(names.index(region))
    return Places(np.array(features, np.float32), np.array(targets))


def _feature_maps(
    bundle: Path, card: ModelCard, manifest: Manifest, indices: Sequence[int]
) -> Iterator[tuple[str, np.ndarray, View]]:
    """Yield path, feature maps (D, h, w) and view of images, as the bundle's file computes them."""
    classifier = Classifier.load(bundle, threads=1)
    engines.disable_telemetry()
    import onnxruntime  # not needed where there are no parts

    content = onnx.load(bundle / card.model)
    name = _features_of(content.graph)
    content.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count() or 1
    session = onnxruntime.InferenceSession(content.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for start in range(0, len(indices), _BATCH):
        rows = [manifest.rows[index] for index in indices[start : start + _BATCH]]
        views = [pointing_game.network_view(manifest.root / row.path, classifier) for row in rows]
        (batch,) = session.run([name], {engines.INPUT: np.stack([image for image, _ in views])})
        for row, maps, (_, view) in zip(rows, batch, views, strict=True):
            yield row.path, maps, view


def _regions(view: View, annotation: Annotation, shape: tuple[int, ...]) -> Iterator[tuple[int, int, str]]:
    """Yield row, column and region of the places whose middle lies in the bird's box, where a part is visible."""
    height, width = shape
    size = view.preprocessing.size
    for row in range(height):
        for column in range(width):
            position = view.to_file(((column + 0.5) * size / width, (row + 0.5) * size / height))
            part = pointing_game.nearest(annotation.parts, position)
            if part is not None and _inside(annotation.box, position):
                yield row, column, cub200.region(part)


def _inside(box: Box, position: Position) -> bool:
    return box.x <= position[0] <= box.x + box.width and box.y <= position[1] <= box.y + box.height


def _named_right(bundle: Path, manifest: Manifest, annotations: dict[str, Annotation]) -> Iterator[bool]:
    """Yield for each test image with a visible part whether the part that an explanation names is the nearest one."""
    classifier = Classifier.load(bundle, threads=os.cpu_count() or 1)
    size = classifier.card.input.size
    for index in manifest.part("test"):
        path = manifest.rows[index].path
        image, view = pointing_game.network_view(manifest.root / path, classifier)
        (answer,) = classifier.classify(image[None])
        nearest = pointing_game.nearest(
            annotations[path].parts, view.to_file(peak(answer.class_map(answer.best), size))
        )
        named = answer.part(classifier.card)
        if nearest is not None and named is not None:
            yield named.name == cub200.region(nearest)


def _stated(parts: Parts | None) -> tuple[str, float, int]:
    return (", ".join(parts.names), 100 * parts.accuracy, parts.images) if parts else ("", 0.0, 0)
