"""`python -m training data manifest` and `data describe`: what is in a folder of images, and how it is split."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from training.cli import Command

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def manifest_options(parser: "ArgumentParser") -> None:
    """Declare what is not part of the recipe; only its entries of ``data`` matter here."""
    parser.add_argument("--output", help="write the manifest to this CSV file; a list of corrupt files goes beside it")
    parser.add_argument(
        "--cache", default="runs/cache", help="folder that remembers which images decode (default: %(default)s)"
    )


def manifest(args: "Namespace") -> int:
    """Index, check and split the images; print what there is."""
    from training import recipe as recipes
    from training.data import corrupt_files, prepare

    manifest, left_out = prepare.make(recipes.resolve(args).data, Path(args.cache))
    if args.output is not None:
        manifest.save(Path(args.output))
        corrupt_files.save(left_out, Path(args.output).with_name(corrupt_files.FILE_NAME))
    for line in prepare.summary(manifest, left_out, every_label=True):
        print(line)
    for file in left_out:
        print(f"left out: {file.path} ({file.reason})")
    print(f"manifest sha256 {manifest.digest}")
    return 0


def describe_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from training.recipe import SourceName

    parser.add_argument("source", choices=get_args(SourceName), help="layout of the folder")
    parser.add_argument("--root", type=Path, help="the folder; default: what the source publishes, downloaded")
    parser.add_argument("--output", type=Path, help="folder of the report; default: runs/describe/SOURCE")
    parser.add_argument("--seed", type=int, default=1, help="of the stratified split (default: %(default)s)")
    parser.add_argument("--manifest", type=Path, help="a manifest whose split is looked at too")


def describe(args: argparse.Namespace) -> int:
    """Describe; print the headline and where the report is."""
    from training.data import prepare
    from training.data.datasets import collect
    from training.data.describe import report

    collection = collect(args.source, args.root)
    manifest = prepare.given(args.manifest, collection) if args.manifest is not None else None
    folder = args.output if args.output is not None else Path("runs", "describe", args.source)
    facts = report.describe(args.source, collection, folder, args.seed, manifest)
    balance, duplicates = facts["balance"], facts["duplicates"]
    print(f"{facts['images']} images of {balance['labels']} labels, {balance['least']}-{balance['most']} each")
    print(f"files that cannot be used: {len(facts['corrupt'])}")
    print(f"identical files: {len(duplicates['same_files'])}; pairs that look the same: {len(duplicates['pairs'])}")
    for name, split in facts["splits"].items():
        print(f"test images with a duplicate in training, {name}: {split['tested_with_a_duplicate_in_training']}")
    print(folder / report.REPORT)
    return 0


COMMANDS = {
    "data manifest": Command(
        "list, check, hash and split the images of a data set", manifest_options, manifest, takes_recipe=True
    ),
    "data describe": Command(
        "report on a data set: balance, sizes, duplicates, corrupt files", describe_options, describe
    ),
}
