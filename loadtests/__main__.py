"""`python -m loadtests COMMAND`: load a service and judge it, compare it, find its best settings.

Exit codes: 0 measured and the targets are met, 1 they are not, 2 the command line or the set-up is wrong, 3 nothing
could be measured, 130 interrupted.
"""

import argparse
import importlib
import signal
import sys

from visionserve import missing_package

# name: module with `add_arguments(parser)` and `run(args) -> exit code`, and what it does. Only the module that is
# used is imported: some need plotting libraries, Locust or psutil.
COMMANDS = {
    "run": ("loadtests.load.run", "load a running service, write a report, check the targets"),
    "report": ("loadtests.results.report", "write the report of an earlier run again"),
    "benchmark": (
        "loadtests.benchmark.command",
        "compare visionserve with other servers and with this machine's limits",
    ),
    "tune": ("loadtests.tune.command", "find the batching, workers and threads that sustain the highest rate here"),
    "soak": ("loadtests.soak", "check that memory and latency stay constant over many requests"),
    "gpu": ("loadtests.gpu.command", "measure what a GPU machine does, part by part, as one table"),
    "restarts": (
        "loadtests.restarts",
        "count the requests that are lost when a service restarts behind a load balancer",
    ),
}
_USAGE, _INTERRUPTED = 2, 130


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        args = _parser(arguments[0] if arguments else "").parse_args(arguments)
        code: int = args.run(args)
        return code
    except ModuleNotFoundError as error:
        print(f"python -m loadtests: {missing_package.sentence(error, 'dev')}", file=sys.stderr)
        return _USAGE
    except ValueError as error:
        print(error, file=sys.stderr)
        return _USAGE
    except KeyboardInterrupt:
        print("\nInterrupted before anything was measured.", file=sys.stderr)
        return _INTERRUPTED


def _parser(name: str) -> argparse.ArgumentParser:
    """Return the parser with the options of one command; of the others it knows the names."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests",
        description=(__doc__ or "").split(": ", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command, (path, summary) in COMMANDS.items():
        subparser = commands.add_parser(command, help=summary)
        if command == name:
            module = importlib.import_module(path)
            subparser.description = (module.__doc__ or "").split("`: ", 1)[-1]
            subparser.formatter_class = argparse.RawDescriptionHelpFormatter
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser


if __name__ == "__main__":
    # Ended by a supervisor, a command stops its servers and keeps its results as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
