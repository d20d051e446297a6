"""Synthetic data sets: three labels that differ by colour, small enough to train on in seconds."""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from training.recipe import Augment, Data, Input, Optimizer, Recipe, Stage

COLOURS = {"blue": (30, 40, 200), "green": (20, 170, 60), "red": (210, 30, 40)}
SIDE = 32


def image_folder(root: Path, per_label: int = 12) -> Path:
    """Write a folder of class folders of PNG files, 41 x 35 pixels, no two the same."""
    for place, (label, colour) in enumerate(COLOURS.items()):
        (root / label).mkdir(parents=True)
        for number in range(per_label):
            image(colour, 100 * place + number).save(root / label / f"{number:02d}.png")
    return root


def labelled_folder(root: Path, groups: int = 24, per_group: int = 3) -> tuple[Path, int]:
    """Write a flat folder with labels.csv: so many sources of so many images, some of which accept a second label."""
    root.mkdir(parents=True)
    labels = [*COLOURS]
    lines = ["file,index,label,accept,source"]
    for group in range(groups):
        for number in range(per_group):
            position = (group + number) % len(labels)
            name = f"{group:02d}-{number}.png"
            image(COLOURS[labels[position]], 10_000 + 100 * group + number).save(root / name)
            accept = "0;2" if position == 2 and number == 0 else str(position)
            lines.append(f"{name},{position},{labels[position]},{accept},site{group}.example")
    (root / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root, groups * per_group


def flowers(root: Path, labels: list[int], train: list[int], val: list[int], test: list[int]) -> Path:
    """Write Oxford 102's layout; ``labels`` holds the class id of images 1, 2, ..."""
    (root / "jpg").mkdir(parents=True)
    for number, class_id in enumerate(labels, start=1):
        image((class_id, 90, 40), number).save(root / "jpg" / f"image_{number:05d}.jpg", quality=95)
    savemat(root / "imagelabels.mat", {"labels": np.array([labels])})
    savemat(root / "setid.mat", {"trnid": np.array([train]), "valid": np.array([val]), "tstid": np.array([test])})
    return root


def pets(root: Path, per_label: int = 10) -> Path:
    """Write the layout of the cats and dogs below PetImages/, its Thumbs.db included."""
    for place, name in enumerate(("Cat", "Dog")):
        folder = root / "PetImages" / name
        folder.mkdir(parents=True)
        (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
        for number in range(per_label):
            image((60 + 120 * place, 90, 40), 100 * place + number).save(folder / f"{number}.jpg", quality=95)
    return root


def damage(folder: Path) -> dict[str, str]:
    """Break three images as those of the published cats and dogs are broken; return name -> what is wrong."""
    whole = (folder / "2.jpg").read_bytes()
    (folder / "0.jpg").write_bytes(b"")
    (folder / "2.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "5.jpg").write_bytes(b"<html>not found</html>")
    return {
        "0.jpg": "empty",
        "2.jpg": "truncated, corrupt or with an unsupported feature",
        "5.jpg": "not an image of an accepted format",
    }


def image(colour: tuple[int, int, int], seed: int) -> Image.Image:
    """Draw a noisy square of one colour, higher than wide."""
    noise = np.random.default_rng(seed).integers(-25, 25, (41, 35, 3))
    return Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8))


def recipe(root: Path, **changes: object) -> Recipe:
    """Return a recipe that learns the drawn colours in seconds on one core."""
    settings: dict[str, object] = {
        "name": "colours",
        "architecture": "shufflenet_v2_x0_5",
        "init": "none",
        "epochs": 3,
        "batch_size": 8,
        "precision": "32-true",
        "data": Data(source="imagefolder", root=str(root), seed=2, cache_side=40, workers=0),
        "input": Input(size=SIDE, crop=0.9),
        "augment": Augment(min_area=0.6, policy="trivial", policy_probability=0.5, mixup=0.3, cutmix=0.3),
        "optimizer": Optimizer(learning_rate=0.05, head_epochs=0, average_decay=0.9),
        "stages": (Stage(0.5, 24, ("conv1",)), Stage(1.0, SIDE)),
    }
    return Recipe(**(settings | changes))  # type: ignore[arg-type]
