"""`python -m training evaluate`, `compare` and `pointing-game`: figures of bundles on labelled images."""

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.cli import Command
from training.data.datasets import SPLITS
from visionserve.errors import BundleError

if TYPE_CHECKING:
    from training.data.manifest import Manifest
    from training.evaluation.evaluate import EvaluationData
    from training.evaluation.report.sections import Section

# As in training.evaluation, which takes seconds to import.
SEVERITIES = (1, 2, 3, 4, 5)
DEFAULT_SEVERITIES = (1, 3, 5)
PRECISIONS = ("int8", "fp32", "fp16", "bf16")


def evaluate_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--bundle", type=Path, required=True, help="the folder that holds card.json and manifest.csv")
    parser.add_argument("--data.root", dest="root", type=Path, required=True, help="folder of the manifest's images")
    parser.add_argument("--split", choices=SPLITS, default="test", help="default: %(default)s")
    parser.add_argument(
        "--outside",
        type=named_folder,
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="images of other things, anywhere below a folder: measures novelty; may be repeated",
    )
    parser.add_argument(
        "--more",
        type=named_folder,
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="folder of a further source in the training data (manifest-NAME.csv): measures its held-out groups",
    )
    parser.add_argument(
        "--external",
        type=named_folder,
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="labelled images of any origin: class folders, a folder with a labels.csv, or a CSV file; may be repeated",
    )
    parser.add_argument(
        "--shifted", type=Path, metavar="DIR", help="class folders of images from elsewhere: measures accuracy"
    )
    parser.add_argument(
        "--names", type=Path, metavar="CSV", help="which label each folder of --shifted shows: lines of folder,label"
    )
    parser.add_argument(
        "--corruptions",
        type=int,
        nargs="*",
        choices=SEVERITIES,
        metavar="SEVERITY",
        help=f"measure accuracy on corrupted images; default severities: {' '.join(map(str, DEFAULT_SEVERITIES))}",
    )
    parser.add_argument("--output", type=Path, help="folder for report.md, metrics.json and plots; default: print only")
    parser.add_argument(
        "--update",
        action="store_true",
        help="write the report, without images, and the card's figures into the bundle itself",
    )
    parser.add_argument("--changed", action="store_true", help="accept images whose bytes are not the manifest's")


def evaluate(args: argparse.Namespace) -> int:
    """Measure a bundle as served and in fp32; print the figures, one a line."""
    from training.evaluation import curves
    from training.evaluation import evaluate as evaluation
    from training.evaluation.report import write as report
    from visionserve.files import is_inside
    from visionserve.model_card import FILE_NAME, ModelCard

    if args.update and args.split != "test":
        raise BundleError(f"a bundle's own figures are those of its test split: leave out --split {args.split}")
    if len(dict(args.outside)) < len(args.outside):
        raise BundleError("two folders of --outside have the same name: write --outside NAME=DIR")
    if len({name for name, _ in (*args.more, *args.external)}) < len(args.more) + len(args.external):
        raise BundleError("two sets of --more and --external have the same name: write --external NAME=PATH")
    folders = [path for _, path in (*args.outside, *args.more, *args.external)]
    for folder in [*folders, *([args.shifted] if args.shifted else [])]:
        if args.output is not None and is_inside(args.output, folder):
            raise BundleError(
                f"--output {args.output} is inside {folder}, whose images are read: choose another folder"
            )
    if args.names is not None and args.shifted is None:
        raise BundleError("--names says what the folders of --shifted DIR show: give both")
    manifest = _manifest(args)
    data = evaluation.collect(args.bundle, manifest, args.split)
    sections = [*report.all_sections(data), *_optional_sections(args, data)]
    for name, value in _scalars(report.figures(data, sections)):
        print(f"{name:<62} {value}")
    if args.output is not None:
        report.write(args.output, data, sections)
    if args.update:
        shutil.rmtree(args.bundle / report.PLOTS, ignore_errors=True)  # those of sections that were not asked for again
        report.write(args.bundle, data, [*sections, *curves.sections(args.bundle, data.card)], photographs=False)
        card = ModelCard.load(args.bundle / FILE_NAME)
        replace(card, metrics=report.headline(data, sections)).save(args.bundle / FILE_NAME)
    return 0


def compare_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "bundles", type=Path, nargs="+", help="folders of bundles; the others are compared with the first"
    )
    parser.add_argument("--data.root", dest="root", type=Path, required=True, help="folder of their images")
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, default=["int8"], help="default: int8, as the bundles are served"
    )
    parser.add_argument(
        "--inputs",
        nargs="+",
        type=size_and_crop,
        default=[],
        metavar="SIZE/CROP",
        help="the first bundle also in fp32 at other inputs, such as 176/0.875: what fewer pixels alone cost",
    )
    parser.add_argument("--rounds", type=int, default=10, help="of the race; 0 leaves it out (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each network per round (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=4, help="images per call (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the processor (default: %(default)s)")
    parser.add_argument("--output", type=Path, required=True, help="folder for compare.md, compare.json, compare.png")


def size_and_crop(text: str) -> tuple[int, float]:
    """Return size and crop of SIZE/CROP; a ValueError is a usage error."""
    from visionserve.transforms import Preprocessing  # torch: seconds, only for those who give an input

    size, crop = text.split("/")
    preprocessing = Preprocessing(int(size), float(crop))
    return preprocessing.size, preprocessing.crop


def compare(args: argparse.Namespace) -> int:
    """Measure accuracy, then speed; write and print the table, and whether to release where versions differ."""
    from training.evaluation import compare as comparison
    from training.evaluation import compare_report

    images = comparison.images_of(args.bundles, args.root)
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        entrants = []
        for index, (bundle, name) in enumerate(zip(args.bundles, comparison.names(args.bundles), strict=True)):
            work = Path(folder, str(index))
            work.mkdir()
            entrants += comparison.candidates(bundle, tuple(args.precisions), work, name)
        entrants += comparison.resized(args.bundles[0], args.inputs, Path(folder))
        right = []
        for entrant in entrants:
            right.append(comparison.correctness(entrant, images, args.threads))
            print(f"measured {entrant.name} in {entrant.precision}", flush=True)
        rates = comparison.race(entrants, args.rounds, args.seconds, batch=args.batch, threads=args.threads)
        rows = [comparison.Measured(*row) for row in zip(entrants, right, rates, strict=True)]
        print(compare_report.write(rows, images, args.output), end="")
    return 0


def pointing_game_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--bundle", type=Path, required=True, help="the folder that holds card.json and manifest.csv")
    parser.add_argument(
        "--data.root", dest="root", type=Path, required=True, help="the CUB-200-2011 folder of the manifest"
    )
    parser.add_argument("--split", choices=SPLITS, default="test", help="default: %(default)s")
    parser.add_argument(
        "--tolerance", type=float, default=0.0, help="pixels by which a peak may miss the box (default: %(default)s)"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/pointing-game"), help="folder (default: %(default)s)")
    parser.add_argument("--changed", action="store_true", help="accept images whose bytes are not the manifest's")


def pointing_game(args: argparse.Namespace) -> int:
    """Measure where heatmaps peak; print the pointing game's shares and the most frequent parts."""
    from training.evaluation import pointing_game as game
    from training.evaluation import pointing_game_report as report

    if not args.tolerance >= 0:
        raise BundleError(f"--tolerance is a number of pixels, 0 or more, not {args.tolerance:g}")
    peaks = game.point(args.bundle, _manifest(args), args.split, args.tolerance)
    figures = game.figures(peaks, args.split, args.tolerance)
    report.write(args.output, peaks, figures, args.root)
    for name, entry in figures["pointing"].items():
        print(f"{name:<22} {entry['share']}")
    print("nearest parts          " + ", ".join(f"{row['part']} {row['hits']}" for row in figures["parts"][:5]))
    print(args.output / "parts.md")
    return 0


def named_folder(text: str) -> tuple[str, Path]:
    """Read NAME=DIR; a folder alone is named after itself."""
    name, separator, folder = text.partition("=")
    return (name, Path(folder)) if separator else (Path(text).name, Path(text))


def _manifest(args: argparse.Namespace) -> "Manifest":
    """Return the bundle's manifest, its images verified unless ``--changed`` accepts others."""
    from training.data import manifest as manifests
    from visionserve.model_card import FILE_NAME, ModelCard

    labels = ModelCard.load(args.bundle / FILE_NAME).labels
    manifest = manifests.load(args.bundle / manifests.FILE_NAME, args.root, labels)
    if not args.changed:
        manifest.verify()
    return manifest


def _optional_sections(args: argparse.Namespace, data: "EvaluationData") -> "Iterator[Section]":
    """Yield the sections that need images or time of their own."""
    from training.data import manifest as manifests
    from training.evaluation.report import distribution_shift, external, novelty, robustness

    labels = data.card.labels
    further = manifests.load_further(args.bundle, labels, dict(args.more)) if args.more else {}
    if not args.changed:
        for manifest in further.values():
            manifest.verify()
    sets = [external.Labelled.of_manifest(name, manifest) for name, manifest in further.items()]
    sets += [external.read(name, path, labels) for name, path in args.external]
    if sets:
        yield external.section(data, sets)
    if args.shifted is not None:
        yield distribution_shift.section(data, args.shifted, args.names)
    if args.outside:
        yield novelty.section(data, dict(args.outside))
    if args.corruptions is not None:
        yield robustness.section(data, sorted(set(args.corruptions)) or DEFAULT_SEVERITIES)


def _scalars(figures: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield single values and intervals with the names of what they are part of; tables stay in the files."""
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from _scalars(value, f"{prefix}{name} ")
        elif not isinstance(value, list) or (len(value) == 2 and isinstance(value[0], float)):
            yield f"{prefix}{name}", value


COMMANDS = {
    "evaluate": Command("measure a bundle on images, as served and in fp32", evaluate_options, evaluate),
    "compare": Command("bundles and precisions side by side: accuracy, work, size, speed", compare_options, compare),
    "pointing-game": Command(
        "whether a bundle's heatmaps peak on the birds of CUB-200-2011, and on which parts",
        pointing_game_options,
        pointing_game,
    ),
}
