"""visionserve: what is in this photograph?

One truth for training, packaging, serving and evaluating an image classifier. The library knows no server and no
network, and no environment variable changes its answers:

    bytes -> images.decode -> transforms.Preprocessing -> engines.Engine -> classifier.Classifier -> answers
"""

import os
import sys

# Both runtimes report to their makers that they are used, unasked, unless this is so before they are imported. ONNX
# Runtime keeps an identifier and a queue below ~/.cache/Microsoft and uploads it (https://github.com/microsoft/
# onnxruntime/pull/27379). OpenVINO forks the process to post to an analytics service, and leaves an identifier in
# ~/intel; None makes the import of its telemetry fail, for which it brings a stand-in.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

__version__ = "1.0.0"
