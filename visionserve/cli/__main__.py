"""`visionserve`: classify images, by a running service or in this process.

Exit codes: 0 done, 1 an image could not be classified, 2 wrong usage or something is missing here, 3 no service
answers, 130 stopped by Ctrl-C. Images of a folder that cannot be classified are rows with an error, and no failure.
"""

import argparse
import io
import os
import signal
import sys
from types import FrameType

import visionserve
from visionserve.cli import exit_codes, explain, models, predict
from visionserve.cli.bulk import command as bulk
from visionserve.cli.exit_codes import Stop
from visionserve.cli.image_files import printable
from visionserve.client import ServiceUnreachable
from visionserve.client.errors import Cause

_COMMANDS = {
    "predict": (predict, "classify images: a readable table, or rows for a whole folder"),
    "bulk": (bulk, "classify a folder or bucket on a cluster, with Ray, into Parquet parts"),
    "explain": (explain, "write the image with its heatmap over it"),
    "models": (models, "list the models of a service and whether it is ready"),
}

# What to try when a service is unreachable.
_HINTS: dict[Cause, str] = {
    "connection": "Start it with `make serve`, or give its address with --url.",
    "timeout": "Give it more time with --timeout, or look at its load.",
    "certificate": "Give its certificate authority with --cacert, or skip the check with --insecure.",
    "proxy": "Check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.",
    "address": "Check --url.",
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["doctor"]:
        print("The checks of the server's machine have moved: run `python -m launcher doctor`.", file=sys.stderr)
        return exit_codes.SETUP
    args = parser().parse_args(arguments)
    try:
        code: int = _COMMANDS[args.command][0].run(args)
    except Stop as stop:
        print(printable(str(stop)), file=sys.stderr)
        return stop.code
    except ServiceUnreachable as unreachable:
        print(printable(f"{unreachable} {_HINTS[unreachable.cause]}"), file=sys.stderr)
        return exit_codes.UNREACHABLE
    except KeyboardInterrupt:
        print("Stopped; finished rows are kept, the same command continues.", file=sys.stderr)
        return exit_codes.INTERRUPTED
    except BrokenPipeError:  # the reader of the output has gone, as `head` does
        return exit_codes.OK
    return code


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    description, _, codes = (__doc__ or "").partition("\n\n")
    top = argparse.ArgumentParser(prog="visionserve", description=description, epilog=codes)
    top.add_argument("--version", action="version", version=f"visionserve {visionserve.__version__}")
    _add_completion(top)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, text) in _COMMANDS.items():
        module.add(commands.add_parser(name, help=text, description=module.__doc__))
    return top


def program() -> None:
    """Run as the console script: SIGTERM ends a run as Ctrl-C does, so that its workers end with it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by who started the program, as some schedulers do
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Labels and file names may have characters that the terminal's encoding lacks.
            stream.reconfigure(errors="backslashreplace")
    sys.exit(main())


def _add_completion(top: argparse.ArgumentParser) -> None:
    try:
        import shtab
    except ImportError:  # completion is a convenience
        return
    shtab.add_argument_to(top, ["--print-completion"], help="print a completion script: bash, zsh or tcsh")


def _interrupt(number: int, _frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends the program, whatever it does
    raise KeyboardInterrupt


if __name__ == "__main__":
    program()
