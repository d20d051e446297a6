"""The benchmark: our service beside what one would use instead, and beside what the machine could do at best.

    ceilings in process (decode, engine, both), ours, TorchServe's own image_classifier, other servers on request
    -> interleaved rounds, same photographs, same client -> medians, spread, paired ratios -> Markdown and JSON

`python -m loadtests.benchmark --help`. Only `ceilings` and `peers`, processes of their own, import the library.
"""
