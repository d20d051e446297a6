"""Package: a bundle -> one self-contained .mar archive, the same bytes from the same inputs.

card.json + the card's int8 or fp32 network (cpu) or weights.safetensors and its half precision export (gpu) -> gates
-> handler, handlers/, visionserve/, card.json, model.onnx, weights (gpu), parts (gpu, if the card names them),
   reference.safetensors, model-config.yaml
-> torch-model-archiver -> entries sorted, times fixed
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from training.export import gates
from training.export.contents import CONFIG, HANDLER, LEFT_OUT, LIBRARY, MODEL, Profile, packed_card, packed_config
from training.export.onnx import export
from training.networks import load_network
from visionserve import novelty, part_layer
from visionserve.engines import WEIGHTS
from visionserve.errors import BundleError
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import INT8, ModelCard, check_name

_MANIFEST = "MAR-INF/MANIFEST.json"
# The earliest time that a zip archive can state.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def build(bundle: Path, output: Path, profile: Profile) -> list[gates.Finding]:
    """Write the archive ``output`` from ``bundle`` and return what its gates measured.

    Raises:
        BundleError: the bundle is not complete or a gate failed; nothing is written.
    """
    with tempfile.TemporaryDirectory(prefix="visionserve-package-") as folder:
        content = Path(folder, "content")
        content.mkdir()
        card = ModelCard.load(bundle / CARD)
        check_name(card.name)
        precision = _network(bundle, card, content / MODEL, profile)
        findings = gates.check(bundle, content / MODEL, precision)
        packed_card(bundle, profile).save(content / CARD)
        _copy(bundle / novelty.FILE_NAME, content / novelty.FILE_NAME)
        for package in (LIBRARY, HANDLER.parent):
            shutil.copytree(package, content / package.name, ignore=shutil.ignore_patterns(*LEFT_OUT, HANDLER.name))
        config = Path(folder, CONFIG)
        config.write_text(packed_config(bundle, profile), encoding="utf-8")
        _rewrite(_archive(card, content, config, Path(folder)), output)
    return findings


def _network(bundle: Path, card: ModelCard, path: Path, profile: Profile) -> gates.Precision:
    """Put the ONNX file of a profile at ``path`` and return its precision."""
    if profile == "cpu":
        _copy(bundle / card.model, path)
        return "int8" if card.model == INT8 else "fp32"
    _copy(bundle / WEIGHTS, path.with_name(WEIGHTS))
    parts = part_layer.load(bundle, card)
    if parts is not None:
        _copy(bundle / part_layer.FILE_NAME, path.with_name(part_layer.FILE_NAME))
    export(load_network(bundle), card.input, path, half=True, parts=parts)
    return "fp16"


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
    # It works in a folder named after the model in the temporary folder: its own, so that two builds cannot meet.
    done = subprocess.run(
        command, env={**os.environ, "TMPDIR": str(folder)}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BundleError(f"torch-model-archiver failed: {done.stderr.strip()}")
    return folder / f"{card.name}.mar"


def _rewrite(source: Path, output: Path) -> None:
    """Copy an archive with its entries sorted, stored without compression and without any trace of when it was made."""
    output.parent.mkdir(parents=True, exist_ok=True)
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
