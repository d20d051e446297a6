"""Peers: the same decode and the same int8 model behind other servers, each in an environment of its own.

These environment variables hold a peer's settings: its server leaves it no command line of its own.
"""

# The unpacked archive.
ARCHIVE = "VISIONSERVE_BENCH_ARCHIVE"
# The engine's runtime: auto, openvino or onnxruntime.
RUNTIME = "VISIONSERVE_BENCH_RUNTIME"
# How many processes answer.
WORKERS = "VISIONSERVE_BENCH_WORKERS"
# The largest batch.
BATCH = "VISIONSERVE_BENCH_BATCH"
