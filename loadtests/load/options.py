"""Options that `python -m loadtests run` and the locustfile share, and what they mean."""

import argparse
from pathlib import Path
from typing import Protocol

from loadtests.load import images
from loadtests.load.images import Photograph

_MIXED = ",".join(f"{width}x{height}:{share}" for (width, height), share in images.MIXED.items())


class Parser(Protocol):
    """argparse's, or Locust's of the same form."""

    def add_argument_group(self, title: str) -> argparse._ArgumentGroup:
        """Return a group to add options to."""
        ...


def add_traffic(parser: Parser) -> None:
    """Declare what is sent."""
    group = parser.add_argument_group("what is sent")
    group.add_argument("--photos", help="a folder of photographs; default: drawn ones")
    group.add_argument("--labels", help="CSV of file,label; default: the photographs' sub-folders, if there are any")
    group.add_argument("--sizes", default=_MIXED, help="of drawn photographs: WIDTHxHEIGHT:SHARE,... (%(default)s)")
    group.add_argument(
        "--broken", type=float, default=0.0, metavar="SHARE", help="share of broken bodies, 0-1; their 4xx are expected"
    )
    group.add_argument(
        "--header", action="append", default=[], metavar="'Name: value'", help="to send with each request"
    )
    group.add_argument("--seed", type=int, default=0, help="another one gives another order of the same traffic")
    group.add_argument("--timeout-s", type=float, default=10.0, help="an answer that takes longer is a failure")
    group.add_argument("--allow-remote", action="store_true", help="load another machine than this one")


def chosen_photographs(options: argparse.Namespace) -> list[Photograph]:
    """Return the photographs that the options ask for; ValueError says what is wrong with them."""
    if options.photos:
        return images.read(Path(options.photos), Path(options.labels) if options.labels else None)
    return images.drawn(images.parse_sizes(options.sizes))
