"""`visionserve models`: list the models of a service, their versions, and whether it is ready."""

import argparse

from visionserve.cli import exit_codes, options
from visionserve.cli.exit_codes import UNREACHABLE, Stop
from visionserve.cli.image_files import printable
from visionserve.cli.output import put
from visionserve.cli.predictors import stop_for_key
from visionserve.client import Model, ResponseError

_READY = "ready"
_DIGITS = 12


def add(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "url",
        nargs="?",
        metavar="URL",
        help="the gateway or the status server; default: VISIONSERVE_STATUS_URL, else as --url of the other commands",
    )
    options.add_service(parser)


def run(args: argparse.Namespace) -> int:
    """Print the models and return 0 when all of them are ready, else 1."""
    args.url = args.url or options.status_url(options.default_url())
    with options.client(args, status=args.url) as client:
        try:
            models = client.models()
        except ResponseError as error:
            stop_for_key(error)
            raise Stop(
                f"The server at {args.url} does not list models ({error.status} {error.code}): "
                "TorchServe's own port cannot; ask the gateway or the status server (port 8083).",
                UNREACHABLE,
            ) from error
        ready = client.ready()
    put(_table(models))
    put(f"{args.url} is {'ready' if ready else 'not ready'}.")
    return exit_codes.OK if ready and all(model.status == _READY for model in models) else exit_codes.REFUSED


def _table(models: list[Model]) -> str:
    several = len({model.name for model in models}) < len(models)
    rows = [("MODEL", "VERSION", *(["ANSWERS"] if several else []), "STATUS", "WORKERS", "DIGEST")]
    rows += [
        (
            printable(model.name),
            printable(model.version) or "-",
            *(["by default" if model.default else f"/{model.name}/{model.version}"] if several else []),
            model.status,
            f"{model.workers.ready}/{model.workers.total}",
            model.digest[:_DIGITS] or "-",
        )
        for model in models
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
