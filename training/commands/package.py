"""`python -m training package`: a bundle becomes an archive for TorchServe."""

import argparse
import sys

import torch

from training.export.package import TUNED, Profile, build
from visionserve.errors import BundleError


def run(args: argparse.Namespace) -> int:
    """Build an archive; print the gates' numbers, or the one message that says what stopped it."""
    output = args.output or args.bundle.with_name(args.bundle.name + ".mar")
    profile: Profile = args.profile if args.profile != "auto" else _detected()
    try:
        findings = build(args.bundle, output, profile)
    except BundleError as error:
        print(f"No archive was written:\n{error}", file=sys.stderr)
        return 1
    for finding in findings:
        print(finding)
    tuned = f", with {args.bundle / TUNED}" if (args.bundle / TUNED).is_file() else ""
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB, profile {profile}{tuned}")
    return 0


def _detected() -> Profile:
    return "gpu" if torch.cuda.is_available() else "cpu"
