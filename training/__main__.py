"""`python -m training COMMAND`: options are read, or explained, before anything is imported that takes seconds."""

import argparse
import os
import signal
import sys
from types import FrameType

from training.cli import Command, data, evaluate, export, fit
from visionserve import missing_package
from visionserve.errors import BundleError

COMMANDS = data.COMMANDS | fit.COMMANDS | evaluate.COMMANDS | export.COMMANDS
RENAMED = {"parts": "pointing-game", "quantise": "quantize"}


def main(arguments: list[str]) -> int:
    """Run one command and return the exit status: 0, 1 with a sentence on what is wrong, or 2 for wrong usage."""
    words = 2 if " ".join(arguments[:2]) in COMMANDS else 1
    name, rest = " ".join(arguments[:words]), arguments[words:]
    if name in RENAMED:
        print(f"python -m training {name}: this command is now called `{RENAMED[name]}`", file=sys.stderr)
        return 2
    if name not in COMMANDS:
        asks_for_help = arguments[:1] in (["-h"], ["--help"])
        print(_overview(), file=sys.stdout if asks_for_help else sys.stderr)
        return 0 if asks_for_help else 2
    command, program = COMMANDS[name], f"python -m training {name}"
    try:
        parser = _parser(command)
        parser.prog, parser.description = program, command.summary
        command.add_arguments(parser)
        return command.run(parser.parse_args(rest))
    except BundleError as error:
        reason = str(error)
    except ModuleNotFoundError as error:
        reason = missing_package.sentence(error, "train")
    print(f"{program}: {reason}", file=sys.stderr)
    return 1


def _parser(command: Command) -> argparse.ArgumentParser:
    if not command.takes_recipe:
        return argparse.ArgumentParser()
    from training import recipe  # 0.3 s: jsonargparse

    return recipe.parser()


def _overview() -> str:
    lines = [f"  {name:<13} {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(["python -m training COMMAND [--help]", "", *lines])


def _end_on_sigterm() -> None:
    """Let SIGTERM end the program as an exception does: what is unfinished is removed on the way out."""
    process = os.getpid()

    def end(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if os.getpid() == process:
            raise SystemExit(128 + signum)
        os._exit(128 + signum)  # a child that has inherited this handler removes nothing of its parent's

    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, end)


if __name__ == "__main__":
    _end_on_sigterm()
    sys.exit(main(sys.argv[1:]))
