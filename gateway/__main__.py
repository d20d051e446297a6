"""`python -m gateway render | run`: write nginx's configuration, or run nginx with it.

Exit codes: 0 done, 1 nginx failed, 2 an option cannot be used or nginx is missing.
Every option is an environment variable too: --max-body-mib is GATEWAY_MAX_BODY_MIB.
Precedence: command line > environment > default.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from gateway import render
from gateway.options import OPTIONS, OptionError, settle

_UNUSABLE = 2
# nginx's workers give up root; they must still reach the folders for bodies inside.
_TRAVERSABLE = 0o711
# To nginx: stop now (INT, TERM), stop when all is answered (QUIT), read certificates again (HUP).
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    given = _parser().parse_args(arguments)
    try:
        options = settle(vars(given), os.environ)
        return _render(options, given.out) if given.command == "render" else _run(options)
    except OptionError as error:
        print(error, file=sys.stderr)
        return _UNUSABLE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gateway", description=__doc__.split("\n\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    epilog = __doc__.split("\n\n", 1)[1]
    write = commands.add_parser(
        "render", help="write nginx.conf and keys.conf, and let nginx check them", epilog=epilog
    )
    write.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write into")
    start = commands.add_parser(
        "run", help="render into a temporary folder and run nginx until it is stopped", epilog=epilog
    )
    for command in (write, start):
        for option in OPTIONS:
            default = f" (default: {option.default})" if option.default else ""
            command.add_argument(option.flag, dest=option.name, metavar="VALUE", help=option.help + default)
    return parser


def _render(options: dict[str, Any], folder: Path) -> int:
    configuration = render.render(options, folder.absolute())
    _warn(options)
    program = render.nginx()
    if program is None:
        print(f"{configuration} is written; nginx is not installed here, so nobody has checked it.")
    else:
        render.check(program, configuration)
        print(f"{configuration} is written, and nginx accepts it.")
    return 0


def _run(options: dict[str, Any]) -> int:
    program = render.nginx()
    if program is None:
        raise OptionError("nginx is not installed: on Debian, `apt-get install nginx-light`.")
    with tempfile.TemporaryDirectory(prefix="gateway-", dir=options["temp"], ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(_TRAVERSABLE)
        configuration = render.render({**options, "temp": folder}, folder)
        _warn(options)
        render.check(program, configuration)
        print(f"The gateway is open at http://{options['host']}:{options['port']}; Ctrl-C closes it.", file=sys.stderr)
        return _wait_for([program, "-e", "stderr", "-c", str(configuration)])


def _wait_for(command: list[str]) -> int:
    """Run nginx to its end, which a signal to this process brings about as one to nginx would."""
    child = subprocess.Popen(command)
    for number in _PASSED_ON:
        signal.signal(number, lambda received, _: child.send_signal(received))
    return child.wait()


def _warn(options: dict[str, Any]) -> None:
    if options["api_keys_file"] and options["ui_url"]:
        print("The page needs no key: whoever reaches it can use the service through it.", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
