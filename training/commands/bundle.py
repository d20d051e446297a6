"""`python -m training bundle`: a finished run becomes model_store/NAME."""

import argparse
import logging
from pathlib import Path

from training import bundle, tracking
from training.fit.trainer import Run
from visionserve.model_card import ModelCard


def run(args: argparse.Namespace) -> int:
    """Make the bundle; print its headline."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    report(make(Run(args.run), output(args.run, args.output)))
    return 0


def make(run: Run, folder: Path) -> ModelCard:
    """Make the bundle of a run and keep it where the run is tracked."""
    card = bundle.make(run, folder)
    tracking.keep(run.folder, folder, card)
    return card


def output(folder: Path, wanted: Path | None) -> Path:
    """Return where the bundle of a run goes."""
    return wanted if wanted is not None else Path("model_store", folder.name)


def report(card: ModelCard) -> None:
    """Print what the card claims."""
    found = card.metrics
    low, high = found["top1_interval"]
    print(
        f"{card.name} {card.version}: top-1 {100 * found['top1']:.2f} % [{100 * low:.1f}, {100 * high:.1f}] as served, "
        f"{100 * found['top1_fp32']:.2f} % fp32, calibration error {100 * found['calibration_error']:.2f} %, "
        f"{found['photographs']} test photographs"
    )
