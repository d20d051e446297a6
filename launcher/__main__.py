"""`python -m launcher serve`: start TorchServe and prove real answers; `visionserve predict` sends photographs to it.

`python -m launcher prepare`, once for an installation, makes the starts that follow faster.

Exit codes: 0 done, 1 the server failed, 2 something is missing or in the way.
Precedence: command line > environment (TS_INFERENCE_ADDRESS, VISIONSERVE_STATUS_PORT and the like) > config.properties.
"""

import argparse
import os
import sys
from pathlib import Path

from launcher import jvm_cds, settings, supervisor
from launcher.settings import SetupError

_SETUP = 2
_HELP = {
    "status_port": "where /livez, /readyz, /metrics and /models are; 0 for nowhere",
    "status_host": "the address of the status server",
    "access_port": "UDP port of this machine for the gateway's records; 0 for none",
    "drain_delay": "seconds from a signal to the earliest stop, for a load balancer to notice",
    "drain_timeout": "seconds after which it stops whatever is in flight",
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _prepare(options) if options.command == "prepare" else _serve(options)
    except SetupError as error:
        print(error, file=sys.stderr)
        return _SETUP


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m launcher", description=__doc__.split("\n\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="start TorchServe, prove every worker, stay in the foreground")
    serve.add_argument("--model", default="flowers", help="the model that has to answer; all archives are served")
    serve.add_argument("--model-store", type=Path, default=Path("model_store"), help="the folder of the archives")
    prepare = commands.add_parser("prepare", help="keep what Java learns of TorchServe's classes, for faster starts")
    for command in (serve, prepare):
        command.add_argument("--config", type=Path, default=Path("config.properties"), help="TorchServe's settings")
    for option, key in settings.PORTS.items():
        serve.add_argument("--" + option.replace("_", "-"), type=int, help=f"default: {key} of the configuration")
    for option, default in settings.OWN.items():
        serve.add_argument("--" + option.replace("_", "-"), help=f"{_HELP[option]} (default: {default})")
    return parser


def _serve(options: argparse.Namespace) -> int:
    chosen = settings.settle(options.model, options.model_store, options.config, vars(options), os.environ)
    return supervisor.serve(chosen, os.environ)


def _prepare(options: argparse.Namespace) -> int:
    written = jvm_cds.prepare(options.config, os.environ)
    print(f"Java's class data for TorchServe {'is' if written else 'was'} in {settings.CLASS_DATA}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
