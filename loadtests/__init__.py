"""Load tests and benchmarks: they speak HTTP to a service and know nothing of its code.

    photographs, broken bodies -> traffic -> closed loop (Locust) or open loop (own generator) -> ledger -> summary
    -> verdict (exit code) and report (HTML, Markdown, PNG, JSON)

`python -m loadtests run --help`; `loadtests/benchmark/` holds the side-by-side comparison.
"""
