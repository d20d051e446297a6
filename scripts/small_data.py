"""Measure the folder recipe on small data sets: the linear probe, the recipe before it, and the recipe as it is.

    DATA/{cats-and-dogs,CUB_200_2011,flowers-102} -> subsets of N images per label -> `python -m training all`
    -> a line per cell in OUTPUT/cells.jsonl, and OUTPUT/table.md

Of each label N images are drawn for training and validation (one in five), and 15 to 50 others test. A cell that is in
the file already is not measured again, so an interrupted start goes on.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from training.data.datasets import collect
from training.evaluation.intervals import wilson

SIZES = (5, 28, 100)
LEAST_TEST, TEST = 15, 50
LABELS = 5
# Pets have two labels, the birds of the disk five of 44 to 60 images: 100 per label leave none to test on there.
SETS: dict[str, tuple[str, str]] = {
    "pets": ("cats-and-dogs", "cats-and-dogs"),
    "birds": ("cub200", "CUB_200_2011"),
    "flowers": ("flowers102", "flowers-102"),
}
# The recipe before it had a probe and followed the size of the data.
FORMER = ["--probe", "false", "--least_steps", "0", "--optimizer.full_rate_images", "0"]
ARMS: dict[str, list[str]] = {"former": FORMER, "present": []}


def main() -> int:
    """Measure the cells that are missing and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--init", required=True, help="initial weights, a safetensors file or torchvision")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="images per label")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1], help="a draw of images and a training each")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="recipes to train with")
    parser.add_argument("--output", type=Path, default=Path("runs/small-data"))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    cells = args.output / "cells.jsonl"
    for name in args.sets:
        for size in args.sizes:
            for seed in args.seeds:
                _measure(args, cells, name, size, seed)
    table = "\n".join(_table(list(_read(cells)))) + "\n"
    (args.output / "table.md").write_text(table, encoding="utf-8")
    print(table)
    return 0


def _measure(args: argparse.Namespace, cells: Path, name: str, size: int, seed: int) -> None:
    done = {(cell["set"], cell["size"], cell["seed"], cell["arm"]) for cell in _read(cells)}
    folder = args.output / f"{name}-{size}-{seed}"
    for arm, options in ((arm, ARMS[arm]) for arm in args.arms):
        if (name, size, seed, arm) in done:
            continue
        if not subset(args.data, name, size, seed, folder / "images"):
            print(f"{name}, {size} per label: too few images, left out", flush=True)
            return
        cell = {"set": name, "size": size, "seed": seed, "arm": arm, **_train(folder, arm, options, args.init, seed)}
        with cells.open("a", encoding="utf-8") as file:
            file.write(json.dumps(cell) + "\n")
        print(json.dumps(cell), flush=True)


def subset(data: Path, name: str, size: int, seed: int, target: Path) -> bool:
    """Link train, val and test folders of a draw; return whether there are enough images."""
    source, below = SETS[name]
    images: dict[str, list[Path]] = {}
    collection = collect(source, data / below)
    for image in collection.images:
        images.setdefault(image.label, []).append(collection.root / image.path)
    rng = np.random.default_rng(seed)
    labels = sorted(images, key=lambda label: (-len(images[label]), label))[:LABELS]
    if min(len(images[label]) for label in labels) < size + LEAST_TEST:
        return False
    for label in labels:
        order = [images[label][index] for index in rng.permutation(len(images[label]))]
        held_out = max(1, size // 5)
        parts = {"val": order[:held_out], "train": order[held_out:size], "test": order[size : size + TEST]}
        for split, files in parts.items():
            folder = target / split / label
            folder.mkdir(parents=True, exist_ok=True)
            for file in files:
                link = folder / file.name
                if not link.exists():
                    link.symlink_to(file.resolve())
    return True


def _train(folder: Path, arm: str, options: list[str], init: str, seed: int) -> dict[str, object]:
    run, bundle = folder / arm, folder / f"{arm}-bundle"
    command = [sys.executable, "-m", "training", "all", "--config", "training/recipes/folder.yaml", "--init", init]
    command += ["--data.root", str(folder / "images"), "--data.split", "given", "--seed", str(seed), "--name", "small"]
    command += ["--run", str(run), "--output", str(bundle), "--tracking.tracker", "none", *options]
    with (folder / f"{arm}.log").open("w", encoding="utf-8") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False, env=dict(os.environ))
    if done.returncode:
        return {"error": (folder / f"{arm}.log").read_text(encoding="utf-8").strip().splitlines()[-1]}
    card = json.loads((bundle / "card.json").read_text(encoding="utf-8"))
    facts = json.loads((run / "run.json").read_text(encoding="utf-8"))
    count = card["metrics"]["photographs"]
    probe = {name: facts[name] for name in ("probe_test_right", "keeps") if name in facts}
    return {"right": round(card["metrics"]["top1"] * count), "images": count, "model": card["model"], **probe}


def _read(cells: Path) -> Iterator[dict[str, object]]:
    if cells.is_file():
        yield from (json.loads(line) for line in cells.read_text(encoding="utf-8").splitlines())


def _table(cells: list[dict[str, object]]) -> list[str]:
    """Return a row per set and size; the images of several seeds are added up."""
    columns: dict[str, Callable[[dict[str, object]], object]] = {
        "linear probe, fp32": lambda cell: cell.get("probe_test_right") if cell["arm"] == "present" else None,
        "former recipe, as served": lambda cell: cell.get("right") if cell["arm"] == "former" else None,
        "recipe, as served": lambda cell: cell.get("right") if cell["arm"] == "present" else None,
    }
    lines = [f"| images per label | {' | '.join(columns)} | kept | served in |", "|---|" + "---|" * (len(columns) + 2)]
    for name, size in sorted({(str(cell["set"]), int(str(cell["size"]))) for cell in cells}):
        row = [cell for cell in cells if (cell["set"], cell["size"]) == (name, size)]
        texts = []
        for right in columns.values():
            counts = [(int(str(right(c))), int(str(c["images"]))) for c in row if right(c) is not None]
            texts.append(_share(sum(a for a, _ in counts), sum(b for _, b in counts)) if counts else "failed")
        kept = ", ".join(str(cell["keeps"]) for cell in row if "keeps" in cell)
        served = ", ".join(str(c["model"]).split(".")[1] for c in row if c["arm"] == "present" and "model" in c)
        lines.append(f"| {size}, {name} | {' | '.join(texts)} | {kept} | {served} |")
    return lines


def _share(right: int, count: int) -> str:
    low, high = wilson(right, count)
    return f"{100 * right / count:.1f} % ({100 * low:.1f}-{100 * high:.1f}) of {count}"


if __name__ == "__main__":
    sys.exit(main())
