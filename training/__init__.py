"""Training: photographs in, a proven bundle out. `python -m training` lists the commands."""

import visionserve  # noqa: F401  before ONNX Runtime: it turns the runtimes' telemetry off
