"""Setting: how a service batches and divides the cores; read from an archive, written into a copy of it."""

import json
import zipfile
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

CONFIG, CARD, WEIGHTS = "model-config.yaml", "card.json", "weights.safetensors"
# By the device of the archive. A GPU is shared by a few processes, however many cores decode.
_BATCHES = {"cpu": (1, 2, 4, 8, 16), "cuda": (8, 16, 32, 64, 128)}
_RUNTIMES = {"cpu": ("openvino", "onnxruntime"), "cuda": ("torch", "onnxruntime", "tensorrt")}
_GPU_DECODERS = ("cpu", "nvjpeg")
_GPU_WORKERS = (1, 2, 4, 6, 8, 12)


@dataclass(frozen=True, order=True)
class Setting:
    """What is searched.

    ``batch_size`` images at most, for which a worker waits ``delay_ms``; ``workers`` processes whose engines use
    ``threads`` threads each; ``runtime`` is the engine's, ``decoder`` who decodes plain JPEGs.
    """

    workers: int
    threads: int
    batch_size: int
    delay_ms: int
    runtime: str
    decoder: str = "cpu"

    def __str__(self) -> str:
        share = f"{self.workers} x {self.threads} threads"
        decoder = f", {self.decoder}" if self.decoder != "cpu" else ""
        return f"{share}, batch {self.batch_size}, delay {self.delay_ms} ms, {self.runtime}{decoder}"

    def config(self) -> dict[str, Any]:
        """Return it with the keys of model-config.yaml."""
        return {
            "batchSize": self.batch_size,
            "maxBatchDelay": self.delay_ms,
            "minWorkers": self.workers,
            "maxWorkers": self.workers,
            "handler": {"threads": self.threads, "runtime": self.runtime, "decoder": self.decoder},
        }


def shipped(archive: Path, cores: int) -> Setting:
    """Return an archive's setting, with the defaults where it has none: a worker per core, the engine of `auto`."""
    config = _config(archive)
    handler = config.get("handler", {})
    workers = config.get("minWorkers", cores)
    runtime = handler["runtime"]
    if runtime == "auto":
        preferred = _has(archive, WEIGHTS) if device(archive) == "cuda" else bool(find_spec("openvino"))
        runtime = _RUNTIMES[device(archive)][0 if preferred else 1]
    decoder = handler.get("decoder", "cpu")
    return Setting(workers, handler["threads"], config["batchSize"], config["maxBatchDelay"], runtime, decoder)


def device(archive: Path) -> str:
    """Return what an archive is built for: cpu or cuda."""
    with zipfile.ZipFile(archive) as content:
        return str(json.loads(content.read(CARD)).get("device", "cpu"))


def axes(start: Setting, cores: int, device: str = "cpu") -> dict[str, list[Setting]]:
    """Return the values of each axis, as variations of a setting: coarse, and no more than the machine can use."""
    if device == "cuda":
        counts = [count for count in _GPU_WORKERS if count <= cores]
        workers = [replace(start, workers=count, threads=1) for count in counts]
        decoders = [replace(start, decoder=name) for name in _GPU_DECODERS]
        return {"workers": workers, **_other_axes(start, device), "decoder": decoders}
    shares = sorted({(workers, max(1, cores // workers)) for workers in {1, max(1, cores // 2), cores, cores + 1}})
    shares += [(workers, 1) for workers in (1, 2 * cores) if (workers, 1) not in shares]
    return {
        "workers": [replace(start, workers=workers, threads=threads) for workers, threads in shares],
        **_other_axes(start, device),
    }


def around(best: Setting) -> list[Setting]:
    """Return the nearest neighbours of a setting that the coarse values leave out."""
    sizes = {best.batch_size * 3 // 4, best.batch_size * 3 // 2} - {0, best.batch_size}
    workers = {best.workers - 1, best.workers + 1} - {0}
    return [replace(best, batch_size=size) for size in sorted(sizes)] + [
        replace(best, workers=count) for count in sorted(workers)
    ]


def write_archive(source: Path, target: Path, setting: Setting) -> None:
    """Copy an archive with a setting in place of its own."""
    config = merged(_config(source), setting.config())
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for entry in old.infolist():
            new.writestr(entry, yaml.safe_dump(config) if entry.filename == CONFIG else old.read(entry))


def merged(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with changes, mappings inside it merged too."""
    inner = {key: value for key, value in changes.items() if isinstance(value, dict)}
    return {**config, **changes, **{key: {**config.get(key, {}), **value} for key, value in inner.items()}}


def _other_axes(start: Setting, device: str) -> dict[str, list[Setting]]:
    return {
        "batch": [replace(start, batch_size=size) for size in _BATCHES[device]],
        "delay": [replace(start, delay_ms=delay) for delay in (1, 3, 10)],
        "runtime": [replace(start, runtime=name) for name in _RUNTIMES[device]],
    }


def _has(archive: Path, name: str) -> bool:
    with zipfile.ZipFile(archive) as content:
        return name in content.namelist()


def _config(archive: Path) -> dict[str, Any]:
    with zipfile.ZipFile(archive) as content:
        config: dict[str, Any] = yaml.safe_load(content.read(CONFIG))
    return config
