"""`python -m training quantize`: a bundle's weights as an int8 ONNX file, calibrated on any folder of photographs."""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from training import golden
from training.bundle import calibration
from training.data.datamodule import load_served
from training.export.onnx import export
from training.export.quantize import quantize
from visionserve.errors import BundleError
from visionserve.files import is_image
from visionserve.model_card import FILE_NAME as CARD
from visionserve.model_card import ModelCard
from visionserve.transforms import Preprocessing


def run(args: argparse.Namespace) -> int:
    """Export, calibrate, quantize."""
    card = ModelCard.load(args.bundle / CARD)
    files = sorted(path for path in args.images.rglob("*") if is_image(path))
    if not files:
        raise BundleError(f"{args.images} holds no photographs to calibrate on")
    chosen = [files[place] for place in np.random.default_rng(0).permutation(len(files))[:512]]
    images = load_served(chosen, Preprocessing(card.input.size, card.input.crop))
    with tempfile.TemporaryDirectory() as folder:
        fp32 = Path(folder, "fp32.onnx")
        export(golden.eager(args.bundle), card.input, fp32)
        quantize(fp32, calibration(images, seed=0), args.output, reduce_range=not args.full_range)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB")
    return 0
