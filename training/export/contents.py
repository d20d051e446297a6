"""Contents: the files of an archive and where each comes from, and whether an archive has the bundle's present ones.

Imports nothing that takes seconds: `make archive` asks before it builds. Content decides, not times: a bundle that was
moved back is older than the archive of the one it replaces.
"""

import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import yaml

import visionserve
from visionserve.errors import BundleError
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard

Profile = Literal["cpu", "gpu"]

LIBRARY = Path(visionserve.__file__).parent
HANDLER = LIBRARY.parent / "handlers" / "image_handler.py"
MODEL = "model.onnx"
CONFIG = "model-config.yaml"
# As in visionserve.novelty, visionserve.engines and visionserve.part_layer, which take seconds to import.
REFERENCE = "reference.safetensors"
WEIGHTS = "weights.safetensors"
PARTS = "parts.safetensors"
# Beside a bundle, written by `make tune` for one machine: values in place of the profile's own.
TUNED = "tuned.yaml"
# The client and the command line talk to a service: they are not part of one.
LEFT_OUT = ("client", "cli", "py.typed", "__pycache__")
_TUNABLE = {"batchSize", "maxBatchDelay", "minWorkers", "maxWorkers", "handler"}

# Keys that TorchServe does not know are the handler's; tests/contract knows the legal ones.
CONFIGS: dict[Profile, str] = {
    "cpu": """\
# Images per batch at most. int8 on one core gains nothing from more, and with 8 one worker would take all that eight
# clients send while the other idles (docs/LOG.md).
batchSize: 4
# Milliseconds to wait for a full batch: as good as none; what queued up meanwhile is the next batch. 0 would mean 100.
maxBatchDelay: 1
# Seconds until a batch that does not end counts as hung and its worker is replaced. A batch of the largest images
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
# Images per batch at most: a GPU takes more than a core to fill up, and 32 images are still quickly decoded.
batchSize: 32
# Milliseconds to wait for a full batch: as good as none; what queued up meanwhile is the next batch. 0 would mean 100.
maxBatchDelay: 1
# Seconds until a batch that does not end counts as hung and its worker is replaced. A batch of the largest images
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
  # torch (CUDA graphs, from weights.safetensors), onnxruntime, tensorrt, or the faster of the first two.
  runtime: auto
  # cpu, or nvjpeg: plain JPEGs on the GPU, for machines with few cores beside it. `python -m loadtests gpu` compares.
  decoder: cpu
""",
}


def packed_card(bundle: Path, profile: Profile) -> ModelCard:
    """Return the card as an archive has it."""
    card = replace(ModelCard.load(bundle / CARD), model=MODEL)
    return replace(card, device="cuda" if profile == "gpu" else "cpu")


def packed_config(bundle: Path, profile: Profile) -> str:
    """Return the profile's configuration, with the values of the bundle's tuned.yaml where there is one.

    Raises:
        BundleError: that file cannot be read or holds other keys.
    """
    config, path = CONFIGS[profile], bundle / TUNED
    if not path.is_file():
        return config
    try:
        default, tuned = yaml.safe_load(config), yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise BundleError(f"{path} cannot be read ({error}): fix or delete it") from error
    if not isinstance(tuned, dict) or not tuned.keys() <= _TUNABLE or not isinstance(tuned.get("handler", {}), dict):
        raise BundleError(f"{path} may hold {', '.join(sorted(_TUNABLE))} and nothing else: fix or delete it")
    merged = default | tuned | {"handler": default["handler"] | tuned.get("handler", {})}
    return f"# Settings of {path.name} in place of the profile's.\n" + yaml.safe_dump(merged, sort_keys=False)


def sources() -> Iterator[tuple[str, Path]]:
    """Yield (name in the archive, file) of the code that is packed."""
    yield HANDLER.name, HANDLER
    for package in (LIBRARY, HANDLER.parent):
        for path in sorted(package.rglob("*")):
            inside = path.relative_to(package)
            if path.is_file() and path != HANDLER and not set(inside.parts) & set(LEFT_OUT):
                yield f"{package.name}/{inside.as_posix()}", path


def differences(archive: Path, bundle: Path, profile: Profile) -> list[str]:
    """Return which files of an archive are not those that `package` would put into it now; empty when all are.

    The half precision ONNX file of the gpu profile follows from the weights, which are compared in its place.
    """
    expected = dict(_expected(bundle, profile))
    try:
        with zipfile.ZipFile(archive) as content:
            packed = {name: content.read(name) for name in content.namelist() if not name.startswith("MAR-INF/")}
    except (OSError, zipfile.BadZipFile):
        return [archive.name]
    if profile == "gpu":
        packed.pop(MODEL, None)
    return sorted(name for name in expected.keys() | packed.keys() if expected.get(name) != packed.get(name))


def version_of(archive: Path) -> tuple[str, str] | None:
    """Return the name and the version of the model that an archive holds; None when it cannot be read."""
    try:
        with zipfile.ZipFile(archive) as content:
            card = json.loads(content.read(CARD))
            return str(card["name"]), str(card["version"])
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile):
        return None


def profile_of(archive: Path) -> Profile | None:
    """Return the profile that an archive was built with; None when it cannot be read."""
    try:
        with zipfile.ZipFile(archive) as content:
            return "gpu" if b'"device": "cuda"' in content.read(CARD) else "cpu"
    except (OSError, KeyError, zipfile.BadZipFile):
        return None


def _expected(bundle: Path, profile: Profile) -> Iterator[tuple[str, bytes]]:
    card = packed_card(bundle, profile)
    yield CARD, card.text().encode()
    yield CONFIG, packed_config(bundle, profile).encode()
    files = [(REFERENCE, bundle / REFERENCE), *sources()]
    if profile == "cpu":
        files.append((MODEL, bundle / ModelCard.load(bundle / CARD).model))
    else:
        files += [(name, bundle / name) for name in (WEIGHTS, *([] if card.parts is None else [PARTS]))]
    for name, path in files:
        try:
            yield name, path.read_bytes()
        except OSError as error:
            raise BundleError(f"the bundle lacks {path.name}: {error}") from error
