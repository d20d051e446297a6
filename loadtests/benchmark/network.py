"""The network as our archive sets it up, for what is compared with our service: its ceilings and its peers."""

from pathlib import Path

import yaml

from visionserve.classifier import Classifier
from visionserve.engines import Runtime

_CONFIG = "model-config.yaml"


def load(archive: Path, runtime: Runtime = "auto") -> Classifier:
    """Load an unpacked archive with the threads that it is served with; a bundle, which has no settings, with one."""
    config = archive / _CONFIG
    handler = yaml.safe_load(config.read_text(encoding="utf-8"))["handler"] if config.is_file() else {}
    return Classifier.load(
        archive, threads=handler.get("threads", 1), threads_alone=handler.get("threads_alone", 1), runtime=runtime
    )
