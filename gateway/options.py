"""Options of the gateway: command line > environment (GATEWAY_...) > default; an invalid value is one sentence.

An option is an entry of ``OPTIONS``: its name, default, parser and help. ``--max-body-mib`` is ``GATEWAY_MAX_BODY_MIB``
in the environment.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gateway.routes import RESERVED
from launcher.addresses import bindable

PREFIX = "GATEWAY_"


class OptionError(Exception):
    """An option is invalid; the message is one sentence."""


@dataclass(frozen=True)
class Option:
    """One setting: ``parse`` converts its text and raises ValueError with what it must be."""

    name: str
    default: str
    parse: Callable[[str], Any]
    help: str

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return PREFIX + self.name.upper()


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return int(text)

    return parse


def _memory(text: str) -> int | None:
    match = re.fullmatch(r"(?i)([0-9]{1,15})(?:([kmg])i?b?)?", text)
    if text and match is None:
        raise ValueError("a number of bytes, such as 3g, 1536m or 3221225472")
    return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[(match[2] or "").lower()] if match else None


def _cpus(text: str) -> float | None:
    if text and not (re.fullmatch(r"[0-9]{1,4}(?:\.[0-9]{1,3})?", text) and float(text) > 0):
        raise ValueError("a number of cores, such as 2 or 1.5")
    return float(text) if text else None


def _host(text: str) -> str:
    try:
        address = ipaddress.ip_address(bindable(text.strip("[]")))
    except ValueError:
        raise ValueError("an IP address, such as 127.0.0.1 or ::") from None
    return f"[{address}]" if address.version == 6 else str(address)


def _address(text: str) -> str:
    if not re.fullmatch(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}", text) or not _is_port(text):
        raise ValueError("HOST:PORT, such as 127.0.0.1:8080")
    return text


def _is_port(address: str) -> bool:
    return 0 < int(address.rsplit(":", 1)[-1]) < 65536


def _address_or_off(text: str) -> str:
    return "" if text == "off" else _address(text)


def _folder(text: str) -> Path:
    # No character that would need quotes in nginx's configuration.
    if not re.fullmatch(r"/[A-Za-z0-9._/+@-]*", text):
        raise ValueError("an absolute path of letters, digits and ._/+@-")
    return Path(text)


def _file(text: str) -> Path | None:
    return _folder(text) if text else None


def _any_file(text: str) -> Path | None:
    return Path(text).absolute() if text else None


def _entries(text: str) -> tuple[str, ...]:
    return tuple(part for part in re.split(r"[\s,]+", text) if part)


def _origins(text: str) -> tuple[str, ...]:
    origins = _entries(text)
    if not all(origin == "*" or re.fullmatch(r"https?://[A-Za-z0-9.-]+(?::[0-9]{1,5})?", origin) for origin in origins):
        raise ValueError("origins such as https://example.org, separated by commas, or *")
    return origins


def _networks(text: str) -> tuple[str, ...]:
    try:
        return tuple(str(ipaddress.ip_network(part)) for part in _entries(text))
    except ValueError:
        raise ValueError("networks such as 10.0.0.0/8, separated by commas") from None


def _ui_url(text: str) -> str:
    parts = urlsplit(text)
    if text and (parts.scheme != "http" or parts.path.strip("/") or parts.query or parts.fragment):
        raise ValueError("http://HOST:PORT without a path")
    return _address(parts.netloc) if text else ""


def _version(text: str) -> tuple[int, ...]:
    if text and not re.fullmatch(r"[0-9]{1,3}(?:\.[0-9]{1,3}){2}", text):
        raise ValueError("a version such as 1.28.0")
    return tuple(int(part) for part in text.split(".")) if text else ()


def _ui_path(text: str) -> str:
    if not re.fullmatch(r"/(?:[A-Za-z0-9_-]{1,64}/)?", text) or re.fullmatch(RESERVED, text):
        raise ValueError("/ or one folder that is not a route, such as /ui/")
    return text


OPTIONS = (
    Option("host", "127.0.0.1", _host, "the address it listens on; :: is all of IPv6 and IPv4"),
    Option("port", "8000", _integer(1, 65535), "the port it listens on"),
    Option(
        "port_offset",
        "0",
        _integer(0, 50_000),
        "added to every port and address of this machine that no option gives, as the launcher's --port-offset is",
    ),
    Option("inference", "127.0.0.1:8080", _address, "TorchServe's inference address"),
    Option("status", "127.0.0.1:8083", _address, "address of the status server: health, models, metadata"),
    Option(
        "records",
        "127.0.0.1:8084",
        _address_or_off,
        "address that gets an access record per request (syslog, UDP), or off",
    ),
    Option("temp", "/tmp", _folder, "an existing folder for buffered bodies and the process id"),  # noqa: S108
    Option("workers", "1", _integer(1, 16), "nginx worker processes; all limits below are divided among them"),
    Option("max_connections", "8192", _integer(64, 65536), "connections per worker, those to TorchServe included"),
    Option("max_body_mib", "16", _integer(1, 16), "MiB of a request's body; 16 is TorchServe's limit"),
    Option("concurrency", "0", _integer(0, 64), "requests in TorchServe at once; more get 429; 0: by its memory"),
    Option("large_concurrency", "0", _integer(0, 32), "the same for bodies of 1 MB or more; 0: by its memory"),
    Option("per_client", "0", _integer(0, 64), "requests in TorchServe at once of one client; 0: half of all"),
    Option("uploads", "2048", _integer(8, 65535), "requests at once, unfinished uploads included"),
    Option("uploads_per_client", "512", _integer(8, 65535), "the same of one client (key, else address)"),
    Option("server_memory", "", _memory, "TorchServe's memory limit, such as 3g; empty: that of this process"),
    Option("server_cpus", "", _cpus, "TorchServe's cores; empty: those of this process"),
    Option("rate", "0", _integer(0, 100_000), "requests per second of one client (key, else address); 0: no limit"),
    Option("burst", "20", _integer(0, 100_000), "requests that a client may be ahead of its rate"),
    Option(
        "client_timeout_s", "10", _integer(1, 3600), "seconds for a request's headers, and between two parts of a body"
    ),
    Option(
        "upload_timeout_s",
        "120",
        _integer(1, 3600),
        "seconds for a whole upload, in `run`; nginx alone has no such limit",
    ),
    Option("answer_timeout_s", "30", _integer(1, 3600), "seconds that TorchServe has for an answer"),
    Option("drain_timeout_s", "30", _integer(1, 3600), "seconds after SIGQUIT until open connections are cut"),
    Option(
        "nginx_version",
        "",
        _version,
        "for `render`: version of the nginx that will read the configuration; empty: of the one installed here",
    ),
    Option("trusted_proxies", "", _networks, "networks whose X-Forwarded-For header is trusted"),
    Option("api_keys_file", "", _file, "a file of name:key lines; without it no key is needed"),
    Option(
        "api_keys",
        "",
        str,
        "the keys themselves, separated by commas, where secrets are variables; on a command line everybody sees them",
    ),
    Option(
        "releases_file",
        "",
        _any_file,
        "releases.json of the folder of archives, whose shares and shadows it follows while it runs",
    ),
    Option("cors_origins", "", _origins, "origins allowed to call from a browser, separated by commas, or *"),
    Option("tls_certificate", "", _file, "a PEM file; with it the plain-HTTP port answers health checks only"),
    Option("tls_key", "", _file, "the certificate's key, a PEM file"),
    Option("tls_port", "8443", _integer(1, 65535), "the port for https"),
    Option("ui_url", "", _ui_url, "address of the web UI, such as http://127.0.0.1:8501"),
    Option("ui_path", "/", _ui_path, "path of the web UI: / or a folder such as /ui/"),
)


# What --port-offset shifts: the launcher's ports, and the gateway's own.
_PORTS = ("port", "tls_port", "inference", "status", "records")


def resolve(arguments: Mapping[str, str | None], environment: Mapping[str, str]) -> dict[str, Any]:
    """Return every option's value; ``arguments`` is the command line's text by name, None where it has none.

    Raises:
        OptionError: an invalid value, an unknown GATEWAY_ variable, or options that contradict each other.
    """
    _check_unknown(environment)
    values = {option.name: _value(option, arguments.get(option.name), environment) for option in OPTIONS}
    for option in OPTIONS:
        if option.name in _PORTS and arguments.get(option.name) is None and not environment.get(option.variable):
            values[option.name] = option.parse(_shifted(option.default, values["port_offset"]))
    if (values["tls_certificate"] is None) != (values["tls_key"] is None):
        raise OptionError("TLS needs both --tls-certificate and --tls-key: give the other one too.")
    if values["api_keys"] and values["api_keys_file"]:
        raise OptionError("Keys are in --api-keys-file or in GATEWAY_API_KEYS, not in both: remove one.")
    return values


def _shifted(default: str, offset: int) -> str:
    """Return a default port, or an address with one, that many higher."""
    host, separator, port = default.rpartition(":")
    return f"{host}{separator}{int(port) + offset}"


def _check_unknown(environment: Mapping[str, str]) -> None:
    # A misspelled GATEWAY_API_KEYS_FILE must not leave the gateway open.
    variables = [option.variable for option in OPTIONS]
    for name in environment:
        if name.startswith(PREFIX) and name not in variables:
            near = get_close_matches(name, variables, 1)
            raise OptionError(f"{name} is not an option: " + (f"did you mean {near[0]}?" if near else "see --help."))


def _value(option: Option, argument: str | None, environment: Mapping[str, str]) -> Any:
    text, source = option.default, option.flag
    if argument is not None:
        text = argument
    elif option.variable in environment:
        text, source = environment[option.variable], option.variable
    try:
        # In compose and Kubernetes an empty variable means "not set".
        return option.parse(text.strip() or option.default)
    except ValueError as error:
        raise OptionError(f"{source} must be {error}, not {text!r}.") from None
