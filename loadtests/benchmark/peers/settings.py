"""The environment variables that tell a peer its settings: its server leaves it no command line of its own."""

# The unpacked archive.
ARCHIVE = "VISIONSERVE_BENCH_ARCHIVE"
# The engine's runtime: auto, openvino or onnxruntime.
RUNTIME = "VISIONSERVE_BENCH_RUNTIME"
# How many processes answer.
WORKERS = "VISIONSERVE_BENCH_WORKERS"
# How many images are taken at once, at most.
BATCH = "VISIONSERVE_BENCH_BATCH"
