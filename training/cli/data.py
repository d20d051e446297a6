"""`python -m training data manifest`, `data add`, `data describe`: the images of a folder, and how they are split."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from training.cli import Command
from visionserve.errors import BundleError

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
    _announce()
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


def _announce() -> None:
    """Say at once what takes seconds, and half a minute for some thousand images."""
    print("reading every image once ...", file=sys.stderr, flush=True)


def add_options(parser: "ArgumentParser") -> None:
    """Declare what is not part of the recipe; ``data.manifest`` is the manifest that grows."""
    parser.add_argument("--output", required=True, help="the grown manifest, a CSV file; left-out.csv goes beside it")
    parser.add_argument(
        "--reviewed", help="add the accepted images of this list, a review.csv, instead of the new ones of the folder"
    )
    parser.add_argument(
        "--side",
        choices=("divide", "train", "given"),
        help="divide: by seed and file, in data.shares; train: all for training; given: the folder's own splits. "
        "Default: divide, and train with --reviewed",
    )
    parser.add_argument(
        "--copies",
        choices=("near", "identical"),
        default="near",
        help="leave out images that look like others (near, the default), or only files that are identical",
    )
    parser.add_argument("--new-label", action="append", default=[], help="a label that --reviewed may add; repeatable")
    parser.add_argument("--cache", default="runs/cache", help="folder that remembers which images decode")


def add(args: "Namespace") -> int:
    """Let a manifest grow; print what joined it, what did not and why, and the next command."""
    from training import recipe as recipes
    from training.data import addition, corrupt_files, growth
    from training.data import manifest as manifests

    data, memory, output = recipes.resolve(args).data, Path(args.cache), Path(args.output)
    if args.reviewed is not None:
        reviewed, labels = Path(args.reviewed), args.new_label
        grown = addition.add_reviewed(data, reviewed, labels, args.side or "train", args.copies, memory)
    else:
        grown = addition.add_folder(data, args.side or "divide", args.copies, memory)
    for line in growth.summary(grown):
        print(line)
    if not grown.added:
        raise BundleError("no image was added, so nothing was written")
    grown.manifest.save(output)
    corrupt_files.save(grown.left_out, output.with_name(manifests.LEFT_OUT))
    print(f"{output}: sha256 {grown.manifest.digest}")
    print(f"train on it: --data.root {shlex.quote(str(data.root))} --data.manifest {shlex.quote(str(output))}")
    return 0


def describe_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from training.recipe import SourceName

    names = get_args(SourceName)
    parser.add_argument("source", nargs="?", choices=names, help="layout of the folder; the same as --data.source")
    parser.add_argument("--data.source", dest="data_source", choices=names, help="layout of the folder")
    parser.add_argument(
        "--data.root", "--root", dest="root", type=Path, help="the folder; default: what the source publishes"
    )
    parser.add_argument("--output", type=Path, help="folder of the report; default: runs/describe/SOURCE")
    parser.add_argument(
        "--data.seed", "--seed", dest="seed", type=int, default=1, help="of the stratified split (default: %(default)s)"
    )
    parser.add_argument(
        "--data.manifest", "--manifest", dest="manifest", type=Path, help="a manifest whose split is looked at too"
    )


def describe(args: argparse.Namespace) -> int:
    """Describe; print the headline and where the report is."""
    source = args.data_source or args.source
    if source is None or {source} != {args.data_source or source, args.source or source}:
        raise BundleError("name the layout of the folder once: --data.source imagefolder")
    _announce()
    from training.data import prepare
    from training.data.datasets import collect
    from training.data.describe import report

    collection = collect(source, args.root)
    manifest = prepare.given(args.manifest, collection) if args.manifest is not None else None
    folder = args.output if args.output is not None else Path("runs", "describe", source)
    facts = report.describe(source, collection, folder, args.seed, manifest)
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
    "data add": Command(
        "add new images of a folder, or reviewed corrections, to a manifest", add_options, add, takes_recipe=True
    ),
    "data describe": Command(
        "report on a data set: balance, sizes, duplicates, corrupt files", describe_options, describe
    ),
}
