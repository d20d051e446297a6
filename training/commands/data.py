"""`python -m training data`: what is in a folder of photographs, before any training."""

from collections import Counter
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from training import manifest as manifests
from training import recipe as recipes
from training.sources import SPLITS, collect


def parser() -> ArgumentParser:
    """Return the parser of recipes: only the entries of ``data`` matter here."""
    return recipes.parser()


def add_arguments(options: ArgumentParser) -> None:
    """Declare what is not part of the recipe."""
    options.add_argument("--output", help="write the manifest to this CSV file")


def run(args: Namespace) -> int:
    """Index and divide the photographs; print what there is."""
    wanted = recipes.resolve(args).data
    collection = collect(wanted.source, Path(wanted.root) if wanted.root is not None else None)
    manifest = manifests.build(collection, wanted.split, wanted.seed)
    if args.output is not None:
        manifest.save(Path(args.output))
    counts = Counter(row.label for row in manifest.rows)
    print(f"{len(manifest.rows)} photographs of {len(manifest.labels)} labels in {collection.root}")
    print(", ".join(f"{split} {len(manifest.part(split))}" for split in SPLITS))
    (most, many), (least, few) = counts.most_common(1)[0], counts.most_common()[-1]
    print(f"most: {most} ({many}), fewest: {least} ({few})")
    print(f"manifest sha256 {manifest.digest}")
    return 0
