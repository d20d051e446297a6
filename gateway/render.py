"""Render nginx's configuration from the options; nginx itself checks it where it is installed."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from gateway import api_keys, canary, error_bodies, routes
from gateway.limits import Limits
from gateway.options import OptionError
from visionserve.files import write_text

CONFIGURATION, KEYS = "nginx.conf", "keys.conf"
# Readable by the user who runs nginx; keys by their owner only.
_MODE, _KEYS_MODE = 0o644, 0o600
_NGINX_TIMEOUT_S = 30
# The first version in which a worker that ends leaves clients the time to send their next request.
_KEEPS_CONNECTIONS = (1, 27, 4)


def render(options: Mapping[str, Any], folder: Path) -> Path:
    """Write the configuration into ``folder`` and return its main file.

    Raises:
        OptionError: the folder cannot be written, or the keys are invalid.
    """
    file = options["api_keys_file"]
    keys = api_keys.read(file) if file else api_keys.parse(options["api_keys"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / KEYS, api_keys.render(keys), _KEYS_MODE)
        write_text(folder / CONFIGURATION, text(options, folder / KEYS if keys else None), _MODE)
    except OSError as error:
        raise OptionError(f"{folder} cannot be written ({error.strerror}): choose another folder.") from error
    return folder / CONFIGURATION


def text(options: Mapping[str, Any], keys_file: Path | None) -> str:
    """Return the text of nginx's configuration."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    # Not HTML: nothing is escaped; options.py restricts the characters of each value.
    environment = jinja2.Environment(  # noqa: S701
        loader=loader,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("nginx.conf.j2").render(
        **options,
        limits=Limits.of(options),
        candidates=canary.read(options["releases_file"]),
        keys_file=keys_file,
        routes=routes,
        errors=error_bodies.errors(options["max_body_mib"]),
        usage=error_bodies.USAGE,
        native=error_bodies.native,
        open_inference=error_bodies.open_inference,
        index=error_bodies.index(),
        retry_after=error_bodies.RETRY_AFTER,
        keeps_connections=options["nginx_version"] >= _KEEPS_CONNECTIONS,
    )


def nginx() -> str | None:
    """Return the path of the installed nginx, or None."""
    # On Debian it is in a folder of root's PATH only.
    return shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"]))


def version(program: str) -> tuple[int, ...]:
    """Return the version of an nginx, such as (1, 28, 0); OptionError when it does not say."""
    done = subprocess.run([program, "-v"], capture_output=True, text=True, timeout=_NGINX_TIMEOUT_S, check=False)
    stated = re.search(r"nginx/([0-9]+)\.([0-9]+)\.([0-9]+)", done.stderr)
    if stated is None:
        raise OptionError(f"{program} -v does not say which version of nginx it is: {done.stderr.strip()!r}")
    return tuple(int(number) for number in stated.groups())


def check(program: str, configuration: Path) -> None:
    """Check a configuration with nginx; OptionError with nginx's message when it is rejected."""
    command = [program, "-t", "-q", "-e", "stderr", "-c", str(configuration)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_NGINX_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise OptionError(f"nginx rejects the configuration: {done.stderr.strip() or done.returncode}")
