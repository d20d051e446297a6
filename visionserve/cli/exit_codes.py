"""Exit codes, and the one exception that ends a command with a sentence."""

OK = 0
REFUSED = 1  # an image has no answer, a model is not ready
SETUP = 2  # wrong usage, or something is missing on this machine
UNREACHABLE = 3  # no service answers
INTERRUPTED = 130  # Ctrl-C: 128 + SIGINT, as shells report it


class Stop(Exception):
    """A command cannot go on; the message is one sentence that says what to do."""

    def __init__(self, message: str, code: int = SETUP) -> None:
        super().__init__(message)
        self.code = code
