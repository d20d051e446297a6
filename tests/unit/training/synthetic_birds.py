"""A drawn CUB-200-2011 in its real layout: on black, one disc per file in its class's colour, with box and parts."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from training.data import manifest as manifests
from training.data.datasets import cub200
from visionserve.model_card import Input, ModelCard
from visionserve.network import MEAN, STD
from visionserve.novelty import Reference

CLASSES = {1: "001.Red_Bird", 2: "002.Green_winged_Bird", 3: "003.Blue_Bird"}
PARTS = {1: "beak", 2: "left wing", 3: "tail"}
WIDTH, HEIGHT, RADIUS = 150, 100, 12
PER_CLASS = 8
MISSING = f"{CLASSES[1]}/bird_8.jpg"  # listed, not on disk
GREY = f"{CLASSES[2]}/bird_1.jpg"
SIDE = 64


def folder(root: Path) -> Path:
    """Write the layout: 24 images listed, 23 on disk; every other one is for training."""
    (root / "parts").mkdir(parents=True)
    lists: dict[str, list[str]] = {name: [] for name in ("images", "labels", "split", "boxes", "parts")}
    for number in range(1, len(CLASSES) * PER_CLASS + 1):
        class_id = (number - 1) // PER_CLASS + 1
        name = f"{CLASSES[class_id]}/bird_{(number - 1) % PER_CLASS + 1}.jpg"
        x, y = centre(number)
        lists["images"].append(f"{number} {name}")
        lists["labels"].append(f"{number} {class_id}")
        lists["split"].append(f"{number} {number % 2}")
        lists["boxes"].append(f"{number} {x - RADIUS}.0 {y - RADIUS}.0 {2 * RADIUS}.0 {2 * RADIUS}.0")
        # The beak is in the middle of the disc, the wing at its edge, the tail cannot be seen.
        lists["parts"] += [f"{number} 1 {x}.0 {y}.0 1", f"{number} 2 {x + RADIUS}.0 {y}.0 1", f"{number} 3 0.0 0.0 0"]
        if name != MISSING:
            _draw(class_id, x, y, grey=name == GREY, path=root / "images" / name)
    classes, parts = ([f"{key} {value}" for key, value in found.items()] for found in (CLASSES, PARTS))
    for file, lines in (
        ("classes.txt", classes),
        ("images.txt", lists["images"]),
        ("image_class_labels.txt", lists["labels"]),
        ("train_test_split.txt", lists["split"]),
        ("bounding_boxes.txt", lists["boxes"]),
        ("parts/parts.txt", parts),
        ("parts/part_locs.txt", lists["parts"]),
    ):
        (root / file).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def centre(number: int) -> tuple[int, int]:
    """Return the middle of a bird in pixels of the file."""
    return 45 + 7 * number % 60, 25 + 11 * number % 50


def bundle(root: Path, directory: Path) -> Path:
    """Write a bundle whose class maps are the mean red, green and blue of 8 x 8 pixels: they light up on the bird."""
    directory.mkdir()
    steps = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["features"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Conv", ["features", "as they are"], ["class_maps"], kernel_shape=[1, 1]),
        helper.make_node("GlobalAveragePool", ["class_maps"], ["means"]),
        helper.make_node("Flatten", ["means"], ["logits"]),
        helper.make_node("Identity", ["logits"], ["embedding"]),
    ]
    shapes: dict[str, list[str | int | None]] = {
        "logits": ["N", 3],
        "class_maps": ["N", 3, SIDE // 8, SIDE // 8],
        "embedding": ["N", 3],
    }
    graph = helper.make_graph(
        steps,
        "brightness",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [numpy_helper.from_array(np.eye(3, dtype=np.float32)[:, :, None, None], "as they are")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10),
        directory / "model.int8.onnx",
    )
    points = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    Reference.fit(points, np.arange(30) % 3, points * 1.1, points).save(directory / "reference.safetensors")
    collection = cub200.collect(root)
    manifests.build(collection, "given-test", 1).save(directory / manifests.FILE_NAME)
    ModelCard("birds", "1.0", "none", collection.labels, Input(SIDE, 0.9, MEAN, STD)).save(directory / "card.json")
    return directory


def _draw(class_id: int, x: int, y: int, *, grey: bool, path: Path) -> None:
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[(rows - y) ** 2 + (columns - x) ** 2 <= RADIUS**2, class_id - 1] = 230
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert("L") if grey else image).save(path, quality=95)
