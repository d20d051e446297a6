"""`python -m launcher serve`: start TorchServe, wait until every worker has answered, stay in the foreground.

`doctor` reports what a start needs of this machine; `release` chooses the version that answers; `prepare`, once for an
installation, makes later starts faster.

Exit codes: 0 done, 1 the server failed or a check of `doctor` did, 2 something is missing or in the way.
Precedence: command line > environment (TS_INFERENCE_ADDRESS, VISIONSERVE_STATUS_PORT and the like) > config.properties.
"""

import argparse
import os
import sys
from pathlib import Path

from visionserve import missing_package

with missing_package.explained("python -m launcher", "serve"):
    from launcher import archive, doctor, jvm_cds, release_command, settings, supervisor
    from launcher.settings import Settings, SetupError

_SETUP = 2
DEFAULT_MODEL = "flowers"
_HELP = {
    "status_port": "where /livez, /readyz, /metrics and /models are; 0 for nowhere",
    "status_host": "the address of the status server; :: is all of IPv6 and IPv4",
    "access_port": "UDP port of this machine for the gateway's records; 0 for none",
    "drain_delay": "seconds from a signal to the earliest stop, for a load balancer to notice",
    "drain_timeout": "seconds after which it stops whatever is in flight",
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    args = _parser().parse_args(arguments)
    try:
        if args.command == "prepare":
            return _prepare(args)
        if args.command == "doctor":
            return doctor.report(_settings(args), os.environ)
        if args.command == "release":
            order = release_command.Order(args.version, args.share, args.shadow, args.back)
            return release_command.run(_settings(args), order)
        return supervisor.serve(_settings(args), os.environ)
    except SetupError as error:
        print(error, file=sys.stderr)
        return _SETUP


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m launcher", description=__doc__.split("\n\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="start TorchServe, test every worker, stay in the foreground")
    check = commands.add_parser("doctor", help="check this machine for everything that `serve` needs; same options")
    prepare = commands.add_parser("prepare", help="write Java's class data of TorchServe, for faster starts")
    release = commands.add_parser("release", help="choose the version of a model that answers; without options: say it")
    chosen = release.add_mutually_exclusive_group()
    chosen.add_argument("--version", help="the version: alone, it answers all requests that name none")
    chosen.add_argument("--back", action="store_true", help="undo: take the candidate back, else the switch before")
    part = release.add_mutually_exclusive_group()
    part.add_argument("--share", type=int, metavar="PERCENT", help="it answers this part, by way of the gateway")
    part.add_argument("--shadow", type=int, metavar="PERCENT", help="it gets copies of this part, and is only logged")
    for command in (serve, check):
        command.add_argument(
            "--gateway",
            action="store_true",
            help=f"run the gateway too, at PORT ({settings.GATEWAY_PORT}) of all addresses",
        )
    for command in (serve, check, release, prepare):
        command.add_argument("--config", type=Path, default=Path("config.properties"), help="TorchServe's settings")
    for command in (serve, check, release):
        command.add_argument(
            "--model",
            default=os.environ.get("VISIONSERVE_MODEL") or None,
            help="the model that has to answer; every archive is served (default: VISIONSERVE_MODEL, or the only one)",
        )
        command.add_argument("--model-store", type=Path, default=Path("model_store"), help="the folder of the archives")
        for option, key in settings.PORTS.items():
            command.add_argument("--" + option.replace("_", "-"), type=int, help=f"default: {key} of the configuration")
        command.add_argument(
            "--port-offset",
            type=int,
            help="added to every port that is not given by its option or variable (default: 0)",
        )
        for option, default in settings.LAUNCHER_OPTIONS.items():
            command.add_argument("--" + option.replace("_", "-"), help=f"{_HELP[option]} (default: {default})")
    return parser


def _settings(args: argparse.Namespace) -> Settings:
    model = archive.asked_for(args.model, args.model_store) or DEFAULT_MODEL
    return settings.resolve(model, args.model_store, args.config, vars(args), os.environ)


def _prepare(args: argparse.Namespace) -> int:
    written = jvm_cds.prepare(args.config, os.environ)
    print(f"Java's class data for TorchServe {'is' if written else 'was'} in {settings.CLASS_DATA}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
