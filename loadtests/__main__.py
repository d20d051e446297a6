"""`python -m loadtests run | report`: load a service and judge it, or make a run's report anew.

Exit codes: 0 the targets are met, 1 they are not, 2 the command line is wrong, 3 nothing could be measured, 130 Ctrl-C.
"""

import argparse
import signal
import sys
from pathlib import Path

from loadtests.load import run
from loadtests.results import report
from loadtests.results.run_record import RunRecord

_USAGE, _INTERRUPTED = 2, 130


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m loadtests", description=(__doc__ or "").split("\n\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run.add_arguments(
        commands.add_parser(
            "run",
            help="load a service, report, judge",
            epilog=run.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )
    again = commands.add_parser("report", help="make the report of an earlier run anew")
    again.add_argument("folder", type=Path, help="the folder that holds run.json")
    options = parser.parse_args(arguments)
    try:
        if options.command == "run":
            return run.run(options)
        print(report.write(RunRecord.load(options.folder), options.folder))
        return 0
    except ValueError as error:
        print(error, file=sys.stderr)
        return _USAGE
    except KeyboardInterrupt:
        print("\nInterrupted before anything was measured.", file=sys.stderr)
        return _INTERRUPTED


if __name__ == "__main__":
    # Ended by a supervisor, it reports what it has as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
