"""`python -m monitoring COMMAND`: dashboard, reference, evaluate, corrections, drift check | reference | study.

Exit status: 0 done, 1 unusable input, 3 no service answers, 4 drift, 130 interrupted. Options are declared here and the
modules that do the work are imported when a command runs, so that --help stays fast.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from visionserve import missing_package
from visionserve.errors import BundleError

UNUSABLE = 1
_BUNDLE = Path("model_store/flowers")
_SMALLEST_ALPHA = 0.001  # an eighth of it, for one of eight features, is what 10,000 simulated label mixes can show
DASHBOARD = Path("monitoring/grafana/dashboards/visionserve.json")
RULES = Path("monitoring/rules/reference.yml")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    args = _parser().parse_args(arguments)
    module, function = args.run.rsplit(".", 1)
    try:
        return int(getattr(import_module(module), function)(args))
    except BundleError as error:
        reason = str(error)
    except ModuleNotFoundError as error:
        reason = missing_package.sentence(error, "train")
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    print(f"{args.program}: {reason}", file=sys.stderr)
    return UNUSABLE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m monitoring", description="Monitor a model in production.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _dashboard(_command(commands, "dashboard", "monitoring.dashboard.render.run", "write the Grafana dashboard"))
    _reference(
        _command(
            commands,
            "reference",
            "monitoring.reference.run",
            "write the Prometheus rules with a model's expected label mix and novelty",
        )
    )
    _evaluate(
        _command(
            commands,
            "evaluate",
            "monitoring.online.evaluate.run",
            "post labelled images to the running service and compare its accuracy with the model card's",
        )
    )
    _corrections(
        _command(
            commands,
            "corrections",
            "monitoring.corrections.run",
            "list feedback and mistakes with their images, for a person to decide what becomes training data",
        )
    )
    _shadow(
        _command(
            commands,
            "shadow",
            "monitoring.shadow.run",
            "say how far a version in the shadow agrees with the one that answers, by the gateway's log",
        )
    )
    drift = commands.add_parser("drift", help="compare the images that come in with the validation images")
    actions = drift.add_subparsers(required=True, metavar="COMMAND")
    _check(
        _command(actions, "check", "monitoring.drift.commands.check", "test the windows of a log or a folder of images")
    )
    _drift_reference(
        _command(
            actions,
            "reference",
            "monitoring.drift.commands.reference",
            "build a bundle's drift reference from its validation images",
        )
    )
    _study(
        _command(
            actions, "study", "monitoring.drift.commands.study", "measure false-alarm rate and power on real changes"
        )
    )
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, run: str, text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.set_defaults(run=run, program=parser.prog)
    return parser


def _dashboard(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, default=DASHBOARD, help="default: %(default)s")


def _reference(parser: argparse.ArgumentParser) -> None:
    _bundle(parser)
    parser.add_argument("--out", type=Path, default=RULES, help="default: %(default)s")


def _evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images",
        type=Path,
        required=True,
        help="folder of class folders or with a labels.csv, a CSV file of that form, or a bundle's manifest",
    )
    parser.add_argument("--root", type=Path, help="folder that the CSV file's paths start from (default: its own)")
    parser.add_argument("--split", default="test", help="split to post, of a CSV file with splits (default: test)")
    parser.add_argument(
        "--url",
        default=os.environ.get("VISIONSERVE_URL") or "http://127.0.0.1:8080",
        help="address of the service (default: VISIONSERVE_URL, else http://127.0.0.1:8080)",
    )
    parser.add_argument("--model", default="flowers", help="name of the model (default: %(default)s)")
    parser.add_argument("--api-key", help="API key, where the gateway requires one")
    parser.add_argument("--log", type=Path, default=Path("runs/live/log.jsonl"), help="default: %(default)s")
    parser.add_argument(
        "--report",
        type=Path,
        default=Path("runs/live"),
        help="each run writes its report into a new folder below this one (default: %(default)s)",
    )
    parser.add_argument("--textfile", type=Path, help="write a Prometheus text file here, for the textfile collector")
    parser.add_argument("--feedback", type=Path, help="user feedback from the web page, JSON Lines")
    parser.add_argument(
        "--bundle", type=Path, help="the model's bundle: adds its card's accuracy and the images' properties for drift"
    )
    parser.add_argument(
        "--compare",
        action="store_true",
        help="with --bundle: classify here too and compare image by image; always for the bundle's own manifest",
    )
    parser.add_argument(
        "--alpha",
        type=_probability,
        default=0.05,
        help="probability of reporting an accuracy below the card's that is not (default: %(default)s)",
    )
    parser.add_argument("--limit", type=_positive, help="post at most so many, spread evenly over the names")
    parser.add_argument("--concurrency", type=_positive, default=4, help="images in flight (default: %(default)s)")
    parser.add_argument(
        "--rename",
        type=_pair,
        action="append",
        default=[],
        metavar="LABEL=MODEL_LABEL",
        help="a label of the images, and what the model calls it; may be repeated",
    )


def _corrections(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--feedback", type=Path, help="user feedback from the web page, JSON Lines")
    parser.add_argument("--kept", help="folder or fsspec address of the images kept with it (UI_FEEDBACK_IMAGES)")
    parser.add_argument("--confirmed", action="store_true", help="list the predictions judged right too")
    parser.add_argument(
        "--mistakes", type=Path, nargs="+", action="extend", default=[], help="mistakes.csv of evaluate, one or more"
    )
    parser.add_argument("--root", type=Path, help="folder of the evaluated images, where the mistakes' paths start")
    parser.add_argument("--bundle", type=Path, help="the model's bundle: images of its manifest are left out")
    parser.add_argument(
        "--output", type=Path, default=Path("runs/review"), help="folder of the list (default: %(default)s)"
    )


def _shadow(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--log", type=Path, required=True, help="what the gateway printed, its access log included")


def _check(parser: argparse.ArgumentParser) -> None:
    _bundle(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--log", type=Path, help="a log written by `python -m monitoring evaluate`")
    source.add_argument("--images", type=Path, help="a folder of images, classified here, in a seeded random order")
    parser.add_argument("--window", type=_positive, default=200, help="images in a window (default: %(default)s)")
    parser.add_argument("--last", type=_positive, help="test only so many windows, the newest")
    parser.add_argument(
        "--alpha",
        type=_probability,
        default=0.01,
        help=f"probability of a false alarm in a window, {_SMALLEST_ALPHA} or more (default: %(default)s)",
    )
    parser.add_argument("--textfile", type=Path, help="write the newest window as a Prometheus text file")


def _drift_reference(parser: argparse.ArgumentParser) -> None:
    _bundle(parser)
    parser.add_argument("--data", type=Path, required=True, help="folder of the manifest's images")


def _study(parser: argparse.ArgumentParser) -> None:
    _bundle(parser)
    parser.add_argument("--data", type=Path, required=True, help="folder of the manifest's images")
    parser.add_argument(
        "--other", type=Path, action="append", default=[], help="a folder of other images; may be repeated"
    )
    parser.add_argument("--windows", type=_positive, default=1000, help="windows drawn per row (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="write the rows as JSON here too")
    parser.add_argument("--machine", default="", help="description of this machine, for the JSON file")
    parser.add_argument("--no-corruptions", action="store_true", help="leave out the slow part")


def _bundle(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", type=Path, default=_BUNDLE, help="the model's bundle (default: %(default)s)")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def _probability(text: str) -> float:
    """Return the level of a test: simulated p-values reach no smaller one, so the test would never report anything."""
    value = float(text)
    if not _SMALLEST_ALPHA <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not {_SMALLEST_ALPHA} or more and below 1")
    return value


def _pair(text: str) -> tuple[str, str]:
    label, separator, model_label = text.partition("=")
    if not (label and separator and model_label):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form LABEL=MODEL_LABEL")
    return label, model_label


if __name__ == "__main__":
    sys.exit(main())
