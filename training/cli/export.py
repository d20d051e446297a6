"""`python -m training bundle`, `export`, `quantize`, `golden`, `resize`, `prune` and `package`: what follows a run."""

import argparse
import logging
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from training.cli import Command
from training.cli.evaluate import named_folder, size_and_crop
from visionserve.errors import BundleError

if TYPE_CHECKING:
    from training.fit.run import Run
    from visionserve.model_card import ModelCard

CHANNEL_MULTIPLE = 16  # as in training.export.prune
CALIBRATION_IMAGES = 512
REPLACED = ".replaced"  # beside the bundles: those whose place another run took


def bundle_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--run", type=Path, default=Path("runs/flowers"), help="folder of the run (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, help="folder of the bundle; default: model_store/ and the run's name")


def bundle(args: argparse.Namespace) -> int:
    """Make the bundle of a finished run; print its headline."""
    from training.fit.run import Run

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    print_headline(make_bundle(Run(args.run), bundle_folder(args.run, args.output)))
    return 0


def make_bundle(run: "Run", folder: Path) -> "ModelCard":
    """Make the bundle of a run and keep it where the run is tracked; a bundle of another run there is set aside."""
    from training import bundle as bundles
    from training import tracking
    from training.export import sample
    from training.fit.run import read_manifest
    from visionserve.model_card import FILE_NAME, ModelCard

    old = ModelCard.load(folder / FILE_NAME) if (folder / FILE_NAME).is_file() else None
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, "old")
        if old is not None:
            shutil.copytree(folder, copy)
        card = bundles.make(run, folder)
        if old is not None and _origin(old) != _origin(card):
            aside = folder.parent / REPLACED / f"{old.name}-{old.version}-{old.digest[:8]}"
            shutil.rmtree(aside, ignore_errors=True)
            shutil.copytree(copy, aside)
            print(f"{folder} held {old.name} {old.version} of another training, which is now in {aside}")
    tracking.keep(run.folder, folder, card)
    sample.write(folder, read_manifest(run))
    return card


def _origin(card: "ModelCard") -> dict[str, object]:
    """Return what a training follows from: the same twice is the same model."""
    return {name: card.provenance.get(name) for name in ("recipe", "manifest_sha256", "initialised_from")}


def bundle_folder(run: Path, output: Path | None) -> Path:
    """Return where the bundle of a run goes."""
    return output if output is not None else Path("model_store", run.name)


def print_headline(card: "ModelCard") -> None:
    """Print what the card claims."""
    metrics = card.metrics
    low, high = metrics["top1_interval"]
    print(
        f"{card.name} {card.version}: top-1 {100 * metrics['top1']:.2f} % [{100 * low:.1f}, {100 * high:.1f}] as "
        f"served, {100 * metrics['top1_fp32']:.2f} % fp32, calibration error "
        f"{100 * metrics['calibration_error']:.2f} %, {metrics['photographs']} test images"
    )
    if "baseline" in card.provenance:
        from training.evaluation.report.accuracy import baseline

        print(baseline(card))


def export_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    _weights_option(parser)
    parser.add_argument("--output", type=Path, required=True, help="the ONNX file to write")
    parser.add_argument("--half", action="store_true", help="compute in half precision, for GPUs")


def export(args: argparse.Namespace) -> int:
    """Write a bundle's weights as an ONNX file in floats."""
    from training.export import onnx
    from training.networks import load_network
    from visionserve.model_card import FILE_NAME, ModelCard

    input_ = ModelCard.load(args.bundle / FILE_NAME).input
    onnx.export(load_network(args.bundle), input_, args.output, half=args.half)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB")
    return 0


def quantize_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    _weights_option(parser)
    parser.add_argument("--images", type=Path, required=True, help="folder of training images, searched in depth")
    parser.add_argument("--output", type=Path, required=True, help="the ONNX file to write")
    parser.add_argument(
        "--full-range", action="store_true", help="8-bit weights: only right on processors with VNNI or AMX"
    )


def quantize(args: argparse.Namespace) -> int:
    """Export, calibrate, quantize."""
    import numpy as np

    from training.bundle import calibration
    from training.data.datamodule import load_served
    from training.export import onnx
    from training.export import quantize as quantization
    from training.networks import load_network
    from visionserve.files import images_below
    from visionserve.model_card import FILE_NAME, ModelCard
    from visionserve.transforms import Preprocessing

    card = ModelCard.load(args.bundle / FILE_NAME)
    files = images_below(args.images)
    if not files:
        raise BundleError(f"{args.images} holds no images to calibrate on")
    sample = [files[index] for index in np.random.default_rng(0).permutation(len(files))[:CALIBRATION_IMAGES]]
    images = load_served(sample, Preprocessing(card.input.size, card.input.crop))
    with tempfile.TemporaryDirectory() as folder:
        fp32 = Path(folder, "fp32.onnx")
        onnx.export(load_network(args.bundle), card.input, fp32)
        quantization.quantize(fp32, calibration(images, seed=0), args.output, reduce_range=not args.full_range)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB")
    return 0


def golden(args: argparse.Namespace) -> int:
    """Write golden.json after a bundle's weights were changed on purpose."""
    from training import golden as reference

    reference.write(args.bundle)
    print(args.bundle / reference.FILE_NAME)
    return 0


def resize_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--bundle", type=Path, required=True, help="the bundle whose weights are taken")
    parser.add_argument("--data.root", dest="root", type=Path, required=True, help="folder of its images")
    parser.add_argument(
        "--more",
        type=named_folder,
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="folder of a further source that the bundle was trained on; may be repeated",
    )
    parser.add_argument("--input", type=size_and_crop, required=True, metavar="SIZE/CROP", help="such as 176/0.875")
    parser.add_argument("--version", required=True, help="of the new bundle, such as 1.1: its answers differ")
    parser.add_argument("--output", type=Path, required=True, help="folder of the new bundle; --bundle replaces it")


def resize(args: argparse.Namespace) -> int:
    """Make a bundle of the same weights for another input; print its headline."""
    from training import bundle as bundles
    from visionserve.model_card import FILE_NAME, ModelCard
    from visionserve.transforms import Preprocessing

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.version == ModelCard.load(args.bundle / FILE_NAME).version:
        raise BundleError(f"{args.bundle} is version {args.version} already: its answers change, so give another one")
    made = bundles.resize(
        args.bundle, args.root, Preprocessing(*args.input), args.version, args.output, dict(args.more)
    )
    print_headline(made)
    return 0


def prune_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--bundle", type=Path, required=True, help="the folder that holds card.json, manifest.csv, weights.safetensors"
    )
    parser.add_argument("--data.root", dest="root", type=Path, required=True, help="folder of its images")
    parser.add_argument("--ratio", type=float, required=True, help="share of the channels to remove, 0-1")
    parser.add_argument(
        "--multiple", type=int, default=CHANNEL_MULTIPLE, help="of channels kept (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the narrower network")


def prune(args: argparse.Namespace) -> int:
    """Remove channels from a bundle's network, to be fine-tuned by `fit --init`; print what is left."""
    from training.export.prune import prune_bundle
    from training.networks import load_network, multiplications
    from visionserve.model_card import FILE_NAME, ModelCard

    pruned = prune_bundle(args.bundle, args.root, args.output, args.ratio, args.multiple)
    size = ModelCard.load(args.bundle / FILE_NAME).input.size
    before, after = (multiplications(network, size) for network in (load_network(args.bundle), pruned))
    print(f"{args.output}: {after / 1e9:.2f} x 10^9 multiplications per image, {after / before:.0%} of before")
    print(f"fine-tune it: python -m training fit --init {args.output} --teacher.bundle {args.bundle}")
    return 0


def package_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--bundle", type=Path, required=True, help="the folder that holds card.json and its files")
    parser.add_argument("--output", type=Path, help="the archive to write; default: the bundle's folder with .mar")
    parser.add_argument(
        "--profile", choices=["cpu", "gpu", "auto"], default="auto", help="auto (default): gpu where a GPU is usable"
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="where the archive holds another version of the model, keep it beside the new one, as NAME-VERSION.mar",
    )
    parser.add_argument(
        "--if-changed",
        action="store_true",
        help="do nothing where the archive has the bundle's present content and this code; contents decide, not times",
    )


def package(args: argparse.Namespace) -> int:
    """Build an archive; print the gates' numbers, or the one message that says what stopped it."""
    from training.export.contents import TUNED, Profile

    output = args.output or args.bundle.with_name(args.bundle.name + ".mar")
    if args.if_changed and output.is_file() and _up_to_date(output, args.bundle, args.profile):
        return 0
    import torch

    from training.export.package import build

    profile: Profile = args.profile if args.profile != "auto" else "gpu" if torch.cuda.is_available() else "cpu"
    try:
        with _other_version(output, args.bundle, keep=args.keep):
            findings = build(args.bundle, output, profile)
    except BundleError as error:
        print(f"No archive was written:\n{error}", file=sys.stderr)
        return 1
    for finding in findings:
        print(finding)
    tuned = f", with {args.bundle / TUNED}" if (args.bundle / TUNED).is_file() else ""
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB, profile {profile}{tuned}")
    return 0


@contextmanager
def _other_version(archive: Path, bundle: Path, *, keep: bool) -> Iterator[None]:
    """Keep another version that an archive holds beside it, once the block has replaced it; print what became of it."""
    from training.export import contents
    from visionserve.model_card import FILE_NAME, ModelCard

    held = contents.version_of(archive)
    card = ModelCard.load(bundle / FILE_NAME) if (bundle / FILE_NAME).is_file() else None
    if held is None or card is None or held[0] != card.name or held[1] == card.version:
        yield
        return
    name, version = held
    with tempfile.TemporaryDirectory(prefix=".kept-", dir=archive.parent) as folder:
        copy = Path(folder, archive.name)
        shutil.copyfile(archive, copy)
        yield
        if not keep:
            print(f"{archive} held {name} {version}, which is replaced (`make archive KEEP=1` keeps it beside)")
            return
        kept = archive.with_name(f"{name}-{version}.mar")
        copy.replace(kept)
    print(
        f"{archive} held {name} {version}, which is now {kept}; from the next start on {name} {card.version} answers,"
    )
    print(f"unless `make release MODEL={name} TO={version}` says otherwise before")


def _up_to_date(archive: Path, bundle: Path, requested: str) -> bool:
    """Compare an archive with its bundle by content, and print the result; the profile stays where it was detected."""
    from training.export import contents

    packed = contents.profile_of(archive)
    gpu = Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()  # torch would take seconds to say so
    if packed is None or (requested != packed if requested != "auto" else (packed == "gpu") != gpu):
        print(f"{archive} has another profile: building it again")
        return False
    changed = contents.differences(archive, bundle, packed)
    if changed:
        names = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
        print(f"{archive} differs from {bundle} or this code in {names}: building it again")
        return False
    print(f"{archive} is up to date")
    return True


def _weights_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bundle", type=Path, required=True, help="the folder that holds card.json and weights.safetensors"
    )


COMMANDS = {
    "bundle": Command(
        "make model_store/NAME from a finished run: quantize, calibrate, check, measure", bundle_options, bundle
    ),
    "export": Command("write a bundle's network as a fp32 or half precision ONNX file", export_options, export),
    "quantize": Command("write a bundle's network as an int8 ONNX file", quantize_options, quantize),
    "golden": Command("regenerate a bundle's golden outputs", _weights_option, golden),
    "resize": Command("a bundle's network for another input: fewer pixels are faster", resize_options, resize),
    "prune": Command("narrow a bundle's network, to be fine-tuned by fit --init", prune_options, prune),
    "package": Command("pack a bundle into a .mar archive for TorchServe", package_options, package),
}
