"""Standard output: what cannot be written there ends the command with a sentence, or quietly where nobody reads on."""

import os
import sys

from visionserve.cli.exit_codes import Stop

STANDARD_OUTPUT = "-"  # as the name of a table


def put(text: str, end: str = "\n") -> None:
    """Print at once, so that a pipe can follow; Stop when that fails, BrokenPipeError when the reader has gone."""
    try:
        print(text, end=end, flush=True)
    except OSError as error:
        # Python would try once more to write the rest, and report that, when the program ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise Stop(f"Standard output cannot be written: {error.strerror}.") from error
