"""Package: a bundle -> one self-contained .mar archive, the same bytes from the same inputs.

card.json + model.int8.onnx (cpu) or weights.safetensors and its half precision export (gpu) -> gates
-> handler, handlers/, visionserve/, card.json, model.onnx, weights (gpu), reference.safetensors,
   model-config.yaml
-> torch-model-archiver -> entries sorted, times fixed
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Literal

import yaml

import visionserve
from training.export import gates
from training.export.onnx import export
from training.networks import load_network
from visionserve import novelty
from visionserve.engines import WEIGHTS
from visionserve.errors import BundleError
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard

Profile = Literal["cpu", "gpu"]

LIBRARY = Path(visionserve.__file__).parent
HANDLER = LIBRARY.parent / "handlers" / "image_handler.py"
MODEL = "model.onnx"
CONFIG = "model-config.yaml"
# Beside a bundle, written by `make tune` for one machine: values in place of the profile's own.
TUNED = "tuned.yaml"
_TUNABLE = {"batchSize", "maxBatchDelay", "minWorkers", "maxWorkers", "handler"}
_MANIFEST = "MAR-INF/MANIFEST.json"
# What speaks to a service has no place in one.
_LEFT_OUT = ("client", "cli", "py.typed", "__pycache__")
# The earliest time that a zip archive can state.
_EPOCH = (1980, 1, 1, 0, 0, 0)

# Keys that TorchServe does not know are the handler's; tests/contract knows the legal ones.
CONFIGS: dict[Profile, str] = {
    "cpu": """\
# Images per batch at most. int8 on one core gains nothing from more, and with 8 one worker would take all that eight
# clients send while the other idles (docs/LOG.md).
batchSize: 4
# Milliseconds to wait for a full batch: as good as none; what queued up meanwhile is the next batch. 0 would mean 100.
maxBatchDelay: 1
# Seconds until a batch that does not end counts as hung and its worker is replaced. A batch of the largest photographs
# that the limits allow takes less.
responseTimeout: 60
# Seconds a worker may take to load and warm up; a cold disk and a shared core need more than a laptop.
startupTimeout: 300
# minWorkers is left out on purpose: TorchServe then starts one worker per core of the CPU quota.
handler:
  # CPU threads of one worker's engine: the cores are shared out among workers, so decoding overlaps with inference.
  threads: 1
  # openvino, onnxruntime, or the faster one that is installed.
  runtime: auto
""",
    "gpu": """\
# Images per batch at most: a GPU takes more than a core to fill up, and 32 photographs are still quickly decoded.
batchSize: 32
# Milliseconds to wait for a full batch: as good as none; what queued up meanwhile is the next batch. 0 would mean 100.
maxBatchDelay: 1
# Seconds until a batch that does not end counts as hung and its worker is replaced. A batch of the largest photographs
# that the limits allow takes less.
responseTimeout: 180
# Seconds a worker may take to load and warm up: CUDA's libraries are large.
startupTimeout: 300
# Workers: four processes share the GPU, so that it computes one batch while the others are being decoded.
minWorkers: 4
# The same: the number does not change while serving.
maxWorkers: 4
handler:
  # CPU threads of one worker's engine: the GPU computes.
  threads: 1
  # torch (CUDA graphs, from weights.safetensors), onnxruntime, or the faster one that is installed.
  runtime: auto
""",
}


def build(bundle: Path, output: Path, profile: Profile) -> list[gates.Finding]:
    """Write the archive ``output`` from ``bundle`` and return what its gates measured.

    Raises:
        BundleError: the bundle is not complete or a gate failed; nothing is written.
    """
    with tempfile.TemporaryDirectory(prefix="visionserve-package-") as folder:
        content = Path(folder, "content")
        content.mkdir()
        card = ModelCard.load(bundle / CARD)
        precision = _network(bundle, card, content / MODEL, profile)
        findings = gates.check(bundle, content / MODEL, precision)
        replace(card, model=MODEL, device="cuda" if profile == "gpu" else "cpu").save(content / CARD)
        _copy(bundle / novelty.FILE_NAME, content / novelty.FILE_NAME)
        for package in (LIBRARY, HANDLER.parent):
            shutil.copytree(package, content / package.name, ignore=shutil.ignore_patterns(*_LEFT_OUT, HANDLER.name))
        config = Path(folder, CONFIG)
        config.write_text(_tuned(CONFIGS[profile], bundle / TUNED), encoding="utf-8")
        _rewrite(_archive(card, content, config, Path(folder)), output)
    return findings


def _network(bundle: Path, card: ModelCard, path: Path, profile: Profile) -> gates.Precision:
    """Put the ONNX file of a profile at ``path`` and return its precision."""
    if profile == "cpu":
        _copy(bundle / card.model, path)
        return "int8"
    _copy(bundle / WEIGHTS, path.with_name(WEIGHTS))
    export(load_network(bundle), card.input, path, half=True)
    return "fp16"


def _tuned(config: str, path: Path) -> str:
    """Return a configuration with the values of a file in place of its own, if there is such a file."""
    if not path.is_file():
        return config
    try:
        own, found = yaml.safe_load(config), yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise BundleError(f"{path} cannot be read ({error}): mend or delete it") from error
    if not isinstance(found, dict) or not found.keys() <= _TUNABLE or not isinstance(found.get("handler", {}), dict):
        raise BundleError(f"{path} may hold {', '.join(sorted(_TUNABLE))} and nothing else: mend or delete it")
    tuned = own | found | {"handler": own["handler"] | found.get("handler", {})}
    return f"# Settings of {path.name} in place of the profile's.\n" + yaml.safe_dump(tuned, sort_keys=False)


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise BundleError(f"the bundle lacks {source.name}: {error}") from error


def _archive(card: ModelCard, content: Path, config: Path, folder: Path) -> Path:
    """Run torch-model-archiver on ``content`` and return its archive."""
    command = [
        str(Path(sys.executable).with_name("torch-model-archiver")),
        f"--model-name={card.name}",
        f"--version={card.version}",
        f"--handler={HANDLER}",
        f"--config-file={config}",
        f"--extra-files={content}",
        f"--export-path={folder}",
    ]
    # It works in a folder named after the model in the temporary folder: ours, so that two builds cannot meet.
    done = subprocess.run(
        command, env={**os.environ, "TMPDIR": str(folder)}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BundleError(f"torch-model-archiver failed: {done.stderr.strip()}")
    return folder / f"{card.name}.mar"


def _rewrite(source: Path, output: Path) -> None:
    """Copy an archive with its entries sorted, stored without compression and without any trace of when it was made."""
    partial = output.with_name(output.name + ".partial")
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as new:
        for name in sorted(old.namelist()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            new.writestr(entry, _timeless(old.read(name)) if name == _MANIFEST else old.read(name))
    partial.replace(output)


def _timeless(manifest: bytes) -> bytes:
    content = json.loads(manifest)
    content["createdOn"] = "01/01/1980 00:00:00"
    return json.dumps(content, indent=2, sort_keys=True).encode()
