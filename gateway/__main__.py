"""Write nginx's configuration, or run nginx with it: `python -m gateway render | run`.

Exit codes: 0 done, 1 nginx failed, 2 invalid option or nginx is not installed.
Every option is also an environment variable: --max-body-mib is GATEWAY_MAX_BODY_MIB.
Precedence: command line > environment > default.
"""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from visionserve import missing_package

with missing_package.explained("python -m gateway", "serve"):
    import psutil

    from gateway import canary, process, render
    from gateway.options import OPTIONS, OptionError, resolve
    from gateway.slow_uploads import SlowUploads

_UNUSABLE = 2
# How often a run looks at uploads and at the releases.
UPLOADS_S, RELEASES_S = 5.0, 0.5
# nginx's workers drop root privileges and must still reach the folders for bodies inside.
_TRAVERSABLE = 0o711


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    args = _parser().parse_args(arguments)
    try:
        options = resolve(vars(args), os.environ)
        return _render(options, args.out) if args.command == "render" else _run(options)
    except OptionError as error:
        process.say(str(error))
        return _UNUSABLE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m gateway", description=__doc__.split("\n\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    epilog = __doc__.split("\n\n", 1)[1]
    write = commands.add_parser(
        "render", help="write nginx.conf and keys.conf, and check them with nginx", epilog=epilog
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
    program = render.nginx()
    installed = render.version(program) if program is not None else ()
    wanted = options["nginx_version"] or installed
    configuration = render.render({**options, "nginx_version": wanted}, folder.absolute())
    _warn(options)
    if program is None:
        print(f"{configuration} is written but not checked: nginx is not installed here.")
    elif installed != wanted:
        there, here = (".".join(map(str, version)) for version in (wanted, installed))
        print(f"{configuration} is written for nginx {there} but not checked: the one installed here is {here}.")
    else:
        render.check(program, configuration)
        print(f"{configuration} is written and nginx accepts it.")
    return 0


def _run(options: dict[str, Any]) -> int:
    program = render.nginx()
    if program is None:
        raise OptionError("nginx is not installed: on Debian, `apt-get install nginx-light`.")
    try:
        temporary = tempfile.TemporaryDirectory(prefix="gateway-", dir=options["temp"], ignore_cleanup_errors=True)
    except OSError as error:
        raise OptionError(f"{options['temp']} cannot be written ({error.strerror}): choose another --temp.") from error
    with temporary as name:
        folder = Path(name)
        folder.chmod(_TRAVERSABLE)
        options |= {"temp": folder, "nginx_version": render.version(program)}
        configuration = render.render(options, folder)
        _warn(options)
        render.check(program, configuration)
        address = f"http://{options['host']}:{options['port']}"
        command = [program, "-e", "stderr", "-c", str(configuration)]

        def started() -> None:
            process.say(f"Gateway at {address}; Ctrl-C stops it.")
            if options["releases_file"]:
                _say_candidates(options)

        watches = [(UPLOADS_S, _watch(options)), (RELEASES_S, _follow(options, folder, program))]
        return process.run(command, started, watches)


def _follow(options: dict[str, Any], folder: Path, program: str) -> Callable[[int], None]:
    """Return what lets nginx read its configuration again when the releases have changed; open requests go on."""
    follower = canary.Follower(options["releases_file"])

    def follow(master: int) -> None:
        if not follower.changed():
            return
        try:
            render.check(program, render.render(options, folder))
        except OptionError as error:
            process.say(f"{error} Until then requests go where they went before.")
            return
        os.kill(master, signal.SIGHUP)
        _say_candidates(options)

    return follow


def _say_candidates(options: dict[str, Any]) -> None:
    sentences = [candidate.sentence for candidate in canary.read(options["releases_file"])]
    process.say(" ".join(sentences or ["All requests that name no version go to the default one."]))


def _watch(options: dict[str, Any]) -> Callable[[int], None]:
    """Return what ends slow uploads; where the kernel does not allow that, it says so once."""
    ports = (options["port"], options["tls_port"])
    uploads: SlowUploads | None = SlowUploads(ports, options["upload_timeout_s"], options["client_timeout_s"])

    def watch(master: int) -> None:
        nonlocal uploads
        if uploads is None:
            return
        try:
            count = uploads.end(master)
        except OSError as error:
            process.say(f"Uploads have no total time here ({error.strerror}); --client-timeout-s still holds.")
            uploads = None
        except psutil.NoSuchProcess:
            return
        else:
            if count:
                process.say(f"{count} uploads took over {options['upload_timeout_s']} s and were ended.")

    return watch


def _warn(options: dict[str, Any]) -> None:
    if (options["api_keys_file"] or options["api_keys"]) and options["ui_url"]:
        print(
            "Warning: the web UI needs no API key, so everybody who can reach it can use the service.", file=sys.stderr
        )


if __name__ == "__main__":
    sys.exit(main())
