"""TorchServe's own image_classifier as its examples have it: ResNet-18 in eager mode, batches of 8, 50 ms of delay.

The benchmark runs it as a process of its own, because it imports torch: it writes the bundle's weights in torch format.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file

_MODEL = """\
from torchvision.models.resnet import BasicBlock, ResNet


class Classifier(ResNet):
    def __init__(self):
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes={classes})
"""
_CONFIG = "batchSize: 8\nmaxBatchDelay: 50\nresponseTimeout: 120\n"


def build(bundle: Path, output: Path) -> None:
    """Write the archive of a ResNet-18 bundle; ValueError when the bundle has another network."""
    card = json.loads((bundle / "card.json").read_text(encoding="utf-8"))
    if card["architecture"] != "resnet18":
        raise ValueError(f"TorchServe's example is a ResNet-18, the bundle a {card['architecture']}")
    with tempfile.TemporaryDirectory(prefix="visionserve-example-") as name:
        folder = Path(name)
        labels = card["labels"]
        (folder / "model.py").write_text(_MODEL.format(classes=len(labels)), encoding="utf-8")
        (folder / "model-config.yaml").write_text(_CONFIG, encoding="utf-8")
        names = {str(index): label for index, label in enumerate(labels)}
        (folder / "index_to_name.json").write_text(json.dumps(names), encoding="utf-8")
        weights = {name: value.float() for name, value in load_file(bundle / "weights.safetensors").items()}
        torch.save(weights, folder / "weights.pth")
        _archive(folder, output)


def _archive(folder: Path, output: Path) -> None:
    command = [
        *[str(Path(sys.executable).with_name("torch-model-archiver")), "--force", "--version=1.0"],
        *[f"--model-name={output.stem}", "--handler=image_classifier", f"--model-file={folder / 'model.py'}"],
        *[f"--serialized-file={folder / 'weights.pth'}", f"--extra-files={folder / 'index_to_name.json'}"],
        *[f"--config-file={folder / 'model-config.yaml'}", f"--export-path={output.parent}"],
    ]
    subprocess.run(command, check=True, capture_output=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", 1)[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    build(args.bundle, args.output)
