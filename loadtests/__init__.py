"""Load tests and benchmarks: `python -m loadtests run | report | benchmark | tune | soak | restarts`.

    images, invalid bodies -> workload -> closed loop (Locust) or open loop (own generator) -> statistics by second
    -> summary -> exit code and report (HTML, Markdown, PNG, JSON)

They speak HTTP and import nothing of the service. The exceptions measure the library itself, in processes of their own:
`benchmark.ceilings` and `benchmark.peers`.
"""
