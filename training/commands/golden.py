"""`python -m training golden`: a bundle's answers to the drawn images, after its weights were changed on purpose."""

import argparse

from training import golden


def run(args: argparse.Namespace) -> int:
    """Write golden.json."""
    golden.write(args.bundle)
    print(args.bundle / golden.FILE_NAME)
    return 0
