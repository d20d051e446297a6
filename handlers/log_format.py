"""Log records on one line each, tracebacks included, for collectors that take a line as a record."""

import logging


class OneLine(logging.Formatter):
    """A formatter whose output holds no line breaks: they become " | "."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        return " | ".join(super().format(record).splitlines())
