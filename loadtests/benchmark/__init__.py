"""The benchmark: visionserve beside what one would use instead, and beside what the machine can do at best.

    ceilings in process (decode, engine, both), visionserve, TorchServe's own image_classifier, other servers on request
    -> interleaved rounds, same images, same client -> medians, spread, paired ratios -> Markdown and JSON

Only `ceilings` and `peers`, which run in processes of their own, import the library.
"""
