"""`python -m training data manifest`: which photographs a run would learn from, choose on and be measured on."""

from collections import Counter
from pathlib import Path

from jsonargparse import Namespace

from training import recipe as recipes
from training.data import corrupt_files, prepare
from training.data.datasets import SPLITS


def run(args: Namespace) -> int:
    """Index, check and divide the photographs; print what there is."""
    manifest, left_out = prepare.make(recipes.resolve(args).data, Path(args.cache))
    if args.output is not None:
        manifest.save(Path(args.output))
        corrupt_files.save(left_out, Path(args.output).with_name(corrupt_files.FILE_NAME))
    counts = Counter(row.label for row in manifest.rows)
    print(f"{len(manifest.rows)} photographs of {len(manifest.labels)} labels in {manifest.root}")
    print(", ".join(f"{split} {len(manifest.part(split))}" for split in SPLITS))
    (most, many), (least, few) = counts.most_common(1)[0], counts.most_common()[-1]
    print(f"most: {most} ({many}), fewest: {least} ({few})")
    for file in left_out:
        print(f"left out: {file.path} ({file.reason})")
    print(f"manifest sha256 {manifest.digest}")
    return 0
