"""Load tests and benchmarks: `python -m loadtests run | report | benchmark | tune | soak | restarts | gpu`.

    images, invalid bodies -> workload -> closed loop (Locust) or open loop (own generator) -> statistics by second
    -> summary -> exit code and report (HTML, Markdown, PNG, JSON)

They speak HTTP and import nothing of the service. Only `benchmark.ceilings`, `benchmark.peers`, `gpu.library` and
`gpu.training` do, in processes of their own, to measure the library itself; an import contract keeps it so.
"""
