"""The environment variables that tell a peer its settings: its server leaves it no command line of its own."""

# The unpacked archive.
ARCHIVE = "VISIONSERVE_BENCH_ARCHIVE"
# How many processes answer.
WORKERS = "VISIONSERVE_BENCH_WORKERS"
# How many images are taken at once, at most.
BATCH = "VISIONSERVE_BENCH_BATCH"
