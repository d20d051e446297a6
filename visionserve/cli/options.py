"""Options that several commands share: the service at an address, or a bundle in this process."""

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from visionserve.cli.exit_codes import Stop
from visionserve.cli.predictors import Overlays, Predictor, ServicePredictor
from visionserve.client import Client

DEFAULT_URL = "http://127.0.0.1:8080"


def add_url(parser: argparse._ActionsContainer) -> None:
    """Declare --url."""
    parser.add_argument(
        "--url",
        default=os.environ.get("VISIONSERVE_URL", DEFAULT_URL),
        help=f"the service; default: VISIONSERVE_URL, else {DEFAULT_URL}",
    )


def add_service(parser: argparse.ArgumentParser) -> None:
    """Declare --timeout and --api-key-file."""
    parser.add_argument(
        "--timeout", type=positive, default=60, metavar="S", help="seconds a call may take, retries included (60)"
    )
    parser.add_argument(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help="a file with the API key; default: the key in VISIONSERVE_API_KEY",
    )


def add_predictor(parser: argparse.ArgumentParser) -> None:
    """Declare the service or the bundle that classifies."""
    source = parser.add_mutually_exclusive_group()
    add_url(source)
    source.add_argument(
        "--model", type=Path, metavar="BUNDLE", help="without a service: a bundle's folder or an archive (.mar)"
    )
    parser.add_argument("--name", default="flowers", help="the name of the service's model (flowers)")
    add_service(parser)


def client(options: argparse.Namespace) -> Client:
    """Return a client of the service; Stop when the address or the key is invalid."""
    try:
        return Client(options.url, _key(options), options.timeout)
    except (ImportError, ValueError) as error:
        raise Stop(str(error)) from error


@contextlib.contextmanager
def predictor(options: argparse.Namespace, top_k: int | None, overlays: Overlays | None = None) -> Iterator[Predictor]:
    """Yield what classifies; Stop when it cannot be used."""
    if options.model is None:
        with client(options) as service:
            yield ServicePredictor(service, options.name, top_k, getattr(options, "concurrency", 1), overlays)
        return
    try:
        # Torch and an engine take seconds to import, and calling a service needs neither.
        from visionserve.cli import local
    except ImportError as error:
        raise Stop(f"--model needs the whole library ({error}): ask a service with --url instead.") from error
    with local.opened(options.model) as directory:
        yield local.LocalPredictor(directory, top_k, getattr(options, "workers", None), overlays)


def positive(text: str) -> float:
    """Read a number above 0."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return number


def count(text: str) -> int:
    """Read a whole number from 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a whole number from 1")
    return int(text)


def _key(options: argparse.Namespace) -> str | None:
    if options.api_key_file is None:
        return os.environ.get("VISIONSERVE_API_KEY") or None
    try:
        text: str = options.api_key_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Stop(f"{options.api_key_file} cannot be read as a key: {error}.") from error
    return text
