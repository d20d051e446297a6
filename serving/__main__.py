"""`python -m serving serve | predict`: start TorchServe and prove one real answer, or send photographs to it.

Exit codes: 0 done, 1 a photograph was refused or the server failed, 2 something is missing or in the way.
Precedence: command line > environment (TS_INFERENCE_ADDRESS and the like, VISIONSERVE_URL) > config.properties.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import requests

from serving import client, preflight, server, settings
from serving.settings import Settings, SetupError

_FAILED, _SETUP = 1, 2
# Loading takes seconds; a cold disk and two busy cores take many of them.
_START_TIMEOUT_S = 240
_RETRY_S = 0.5


class _Stopped(Exception):
    """Somebody sent SIGINT or SIGTERM."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _serve(options) if options.command == "serve" else _predict(options)
    except SetupError as error:
        print(error, file=sys.stderr)
        return _SETUP


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving", description=__doc__.split("\n\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="start TorchServe, prove one answer, stay in the foreground")
    serve.add_argument("--model", default="flowers", help="the model that has to answer; all archives are served")
    serve.add_argument("--model-store", type=Path, default=Path("model_store"), help="the folder of the archives")
    serve.add_argument("--config", type=Path, default=Path("config.properties"), help="TorchServe's settings")
    for option, key in settings.PORTS.items():
        serve.add_argument("--" + option.replace("_", "-"), type=int, help=f"default: {key} of the configuration")
    predict = commands.add_parser("predict", help="send photographs to a running service")
    predict.add_argument("files", nargs="*", type=Path, metavar="FILE", help="default: scikit-learn's dahlia")
    predict.add_argument("--model", default="flowers")
    predict.add_argument("--url", default=os.environ.get("VISIONSERVE_URL", "http://127.0.0.1:8080"))
    predict.add_argument("--top-k", type=int, default=5)
    return parser


def _serve(options: argparse.Namespace) -> int:
    ports = {option: getattr(options, option) for option in settings.PORTS}
    chosen = settings.settle(options.model, options.model_store, options.config, ports, os.environ)
    preflight.check(chosen, os.environ)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        with server.running(chosen, os.environ) as child:
            return _stay(chosen, child)
    except _Stopped:
        print("Stopped.")
        return 0


def _stay(chosen: Settings, child: subprocess.Popen[bytes]) -> int:
    """Prove an answer, then wait for the end of the child, which nobody wants."""
    if not _proved(chosen, child):
        return _FAILED
    print(f"Serving at {chosen.url}/predictions/{chosen.model}; Ctrl-C stops it.", flush=True)
    print(f"TorchServe ended by itself (exit code {child.wait()}): its log above says why.", file=sys.stderr)
    return _FAILED


def _proved(chosen: Settings, child: subprocess.Popen[bytes]) -> bool:
    """Wait for a real prediction and print it; `/ping` would say healthy while no worker can answer."""
    photograph = client.dahlia()
    deadline = time.monotonic() + _START_TIMEOUT_S
    while child.poll() is None and time.monotonic() < deadline:
        try:
            # A request waits in TorchServe's queue until a worker has loaded, so this is no busy loop.
            answer = client.predict(chosen.url, chosen.model, photograph.read_bytes(), top_k=3)
        except (requests.RequestException, client.Refused):
            time.sleep(_RETRY_S)
            continue
        print(client.table("A dahlia, from scikit-learn:", answer))
        return True
    reason = "ended" if child.poll() is not None else f"gave no answer within {_START_TIMEOUT_S} s"
    print(f"TorchServe {reason}: its log above says why.", file=sys.stderr)
    return False


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise _Stopped


def _predict(options: argparse.Namespace) -> int:
    refused = 0
    for file in options.files or [client.dahlia()]:
        try:
            answer = client.predict(options.url, options.model, file.read_bytes(), options.top_k)
        except OSError as error:
            raise SetupError(_unreachable(options.url, file, error)) from error
        except client.Refused as answer_without:
            refused += 1
            print(f"{file}: {answer_without.message}", file=sys.stderr)
        else:
            print(client.table(str(file), answer))
    return _FAILED if refused else 0


def _unreachable(url: str, file: Path, error: OSError) -> str:
    # requests' exceptions are OSErrors too, as are those of reading a file.
    if isinstance(error, requests.RequestException):
        return f"Nothing answers at {url} ({type(error).__name__}): start it with `make serve`."
    return f"{file} cannot be read: {error.strerror}."


if __name__ == "__main__":
    sys.exit(main())
