"""Options that several commands share: the service at an address, or a bundle in this process."""

import argparse
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from visionserve.cli.exit_codes import Stop
from visionserve.cli.predictors import Overlays, Predictor, ServicePredictor, stop_for_key
from visionserve.client import Client, ResponseError
from visionserve.client.client import CONNECTIONS
from visionserve.client.http_messages import only_model

DEFAULT_URL = "http://127.0.0.1:8080"
# TorchServe's own port, and the status server that `make serve` starts beside it: models and health are listed there.
_TORCHSERVE_PORT, _STATUS_PORT = 8080, 8083
_LONGEST_KEY = 1 << 16


def add_url(parser: argparse._ActionsContainer) -> None:
    """Declare --url."""
    parser.add_argument(
        "--url",
        default=default_url(),
        help=f"the service; default: VISIONSERVE_URL, else {DEFAULT_URL}",
    )


def add_service(parser: argparse.ArgumentParser) -> None:
    """Declare --timeout, --api-key-file, --cacert and --insecure."""
    parser.add_argument(
        "--timeout", type=positive, default=60, metavar="S", help="seconds a call may take, retries included (60)"
    )
    parser.add_argument(
        "--api-key-file",
        type=path,
        metavar="FILE",
        help="a file with the API key; default: the key in VISIONSERVE_API_KEY",
    )
    parser.add_argument(
        "--cacert", type=path, metavar="FILE", help="the certificate authority of an https service, PEM"
    )
    parser.add_argument("--insecure", action="store_true", help="do not check the certificate of an https service")


def add_predictor(parser: argparse.ArgumentParser) -> None:
    """Declare the service or the bundle that classifies."""
    source = parser.add_mutually_exclusive_group()
    add_url(source)
    source.add_argument(
        "--model", type=path, metavar="BUNDLE", help="without a service: a bundle's folder or an archive (.mar)"
    )
    parser.add_argument(
        "--name",
        type=model_name,
        metavar="NAME[/VERSION]",
        help="the service's model; default: the only one that is served, and the version that answers",
    )
    parser.add_argument(
        "--status-url",
        metavar="URL",
        help="where the service lists its models, if not at --url; default: VISIONSERVE_STATUS_URL, else port "
        f"{_STATUS_PORT} beside {_TORCHSERVE_PORT}",
    )
    add_service(parser)


def client(options: argparse.Namespace, status: str | None = None) -> Client:
    """Return a client of the service; Stop when the address or the key is invalid."""
    status = status or getattr(options, "status_url", None)
    try:
        return Client(
            options.url,
            _key(options),
            options.timeout,
            status_url=status or status_url(options.url),
            cacert=options.cacert,
            insecure=options.insecure,
        )
    except (ImportError, ValueError) as error:
        raise Stop(str(error)) from error


def default_url() -> str:
    """Return the service's address if none is given."""
    return os.environ.get("VISIONSERVE_URL") or DEFAULT_URL


def status_url(url: str) -> str:
    """Return where a service lists its models: VISIONSERVE_STATUS_URL, or the port beside TorchServe's, or ``url``."""
    if explicit := os.environ.get("VISIONSERVE_STATUS_URL"):
        return explicit
    try:
        port = urlsplit(url).port
    except ValueError:
        return url
    return url.replace(f":{_TORCHSERVE_PORT}", f":{_STATUS_PORT}") if port == _TORCHSERVE_PORT else url


def _only_model(service: Client) -> str:
    """Return the name of the only model that a service has; Stop if there are several, or it cannot list them."""
    try:
        return only_model(service.models())
    except ResponseError as error:
        stop_for_key(error)
        raise Stop(f"{error.message} Or name the model with --name.") from error
    except ValueError as error:
        raise Stop(f"{error} The option is --name.") from error


@contextlib.contextmanager
def predictor(options: argparse.Namespace, top_k: int | None, overlays: Overlays | None = None) -> Iterator[Predictor]:
    """Yield what classifies; Stop when it cannot be used."""
    if options.model is None:
        with client(options) as service:
            name, _, version = (options.name or _only_model(service)).partition("/")
            concurrency = getattr(options, "concurrency", 1)
            yield ServicePredictor(service, name, top_k, concurrency, overlays, version or None)
        return
    try:
        # Torch and an engine take seconds to import, and calling a service needs neither.
        from visionserve.cli import local
    except ImportError as error:
        raise Stop(
            f"--model runs the network here, which needs more libraries ({error}): pip install 'visionserve[run]', "
            "in a checkout `make setup`; or use a service, with --url."
        ) from error
    with local.opened(options.model) as directory:
        yield local.LocalPredictor(directory, top_k, getattr(options, "workers", None), overlays)


def positive(text: str) -> float:
    """Read a number above 0."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return number


def path(text: str) -> Path:
    """Read the name of a file or folder; an empty one, of a variable that is not set, is not the present folder."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return Path(text)


def model_name(text: str) -> str:
    """Read NAME or NAME/VERSION."""
    if not text.partition("/")[0] or not text.isprintable():
        raise argparse.ArgumentTypeError("must look like NAME or NAME/VERSION")
    return text


def connections(text: str) -> int:
    """Read how many requests are sent at once."""
    if count(text) > CONNECTIONS:
        raise argparse.ArgumentTypeError(f"must be at most {CONNECTIONS}")
    return count(text)


def count(text: str) -> int:
    """Read a whole number from 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a whole number from 1")
    return int(text)


def _key(options: argparse.Namespace) -> str | None:
    if options.api_key_file is None:
        return os.environ.get("VISIONSERVE_API_KEY") or None
    try:
        with options.api_key_file.open("rb") as file:  # which may be a pipe
            text: str = file.read(_LONGEST_KEY).decode().strip()
    except OSError as error:
        raise Stop(f"{options.api_key_file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise Stop(f"{options.api_key_file} has no key: it is not text.") from error
    if not text:
        raise Stop(f"{options.api_key_file} has no key: it is empty.")
    return text
