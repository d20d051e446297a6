"""`python -m training data describe`: what is in a folder of photographs, as a report with pictures."""

import argparse
from pathlib import Path

from training.data import prepare
from training.data.datasets import collect
from training.data.describe.report import REPORT, describe


def run(args: argparse.Namespace) -> int:
    """Describe; print the headline and where the report is."""
    collection = collect(args.source, args.root)
    given = prepare.given(args.manifest, collection) if args.manifest is not None else None
    folder = args.output if args.output is not None else Path("runs", "describe", args.source)
    facts = describe(args.source, collection, folder, args.seed, given)
    balance, twins = facts["balance"], facts["twins"]
    print(
        f"{facts['photographs']} photographs of {balance['labels']} labels, {balance['least']}-{balance['most']} each"
    )
    print(f"files that cannot be used: {len(facts['broken'])}")
    print(f"files there more than once: {len(twins['same_files'])}; pairs that look the same: {len(twins['pairs'])}")
    for name, found in facts["divisions"].items():
        print(f"test photographs with a twin in training, {name}: {found['tested_with_a_twin_in_training']}")
    print(folder / REPORT)
    return 0
