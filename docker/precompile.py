"""Precompile the Python modules that serving loads, by using them once: an image then holds their bytecode.

The root file system of a container is read-only: without this every worker would compile torch's modules at each
start. It also fails the build when something that serving loads was removed.
"""

import argparse
import importlib
import io
import sys
from pathlib import Path

from PIL import Image

from visionserve import engines, images
from visionserve import model_card as cards

# Of TorchServe's worker, the launcher and the gateway's renderer; these import the rest.
MODULES = (
    "jinja2",
    "onnxruntime",
    "openvino",
    "prometheus_client",
    "psutil",
    "requests",
    "torch",
    "ts.metrics.caching_metric",
    "ts.model_server",
    "ts.protocol.otf_message_handler",
    "ts.service",
    "visionserve.classifier",
)


def main() -> int:
    """Import the modules and classify one generated image; return a process exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("bundle", type=Path, help="a folder with a model's card and its network")
    bundle: Path = parser.parse_args().bundle
    for name in MODULES:
        importlib.import_module(name)
    print(classify(bundle))
    return 0


def classify(bundle: Path) -> str:
    """Decode a generated JPEG with the service's decoder, run the network on it and describe the result."""
    card = cards.ModelCard.load(bundle / cards.FILE_NAME)
    size = card.input.size
    engine = engines.load(bundle / card.model)
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((size, size)).convert("RGB").save(buffer, "JPEG")
    logits = engine.run(images.decode(buffer.getvalue())[None]).logits
    return f"{engine.name} returns {logits.shape[1]} logits"


if __name__ == "__main__":
    sys.exit(main())
