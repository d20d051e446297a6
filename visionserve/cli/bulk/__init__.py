"""`visionserve bulk`: classify the images of a folder or bucket on a cluster, into Parquet parts.

Ray Data schedules the work; what classifies is what `visionserve predict --model` uses:

    command  what is left to do -> Ray -> progress, summary
    ├─ storage   addresses: list images, read one, write a part in one step
    ├─ parts     the output: which images have a row, whose rows they are, counts
    └─ worker    an actor of Ray: some images' names -> one part
"""
