"""The network as our archive sets it up, for what is compared with our service: its ceilings and its peers."""

from pathlib import Path

import yaml

from visionserve.classifier import Classifier
from visionserve.engines import Runtime, Threads

_CONFIG = "model-config.yaml"


def load(archive: Path, runtime: Runtime = "auto") -> Classifier:
    """Load an unpacked archive with the threads that it is served with; a bundle, which has no settings, with one."""
    config = archive / _CONFIG
    if not config.is_file():
        return Classifier.load(archive, runtime=runtime)
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    threads = Threads(content["handler"]["threads"], content["handler"].get("threads_idle", 1), content["batchSize"])
    return Classifier.load(archive, threads, runtime=runtime)
