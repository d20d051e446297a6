"""Target: where the load goes; by default to this machine only."""

import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit


class RemoteTargetError(ValueError):
    """The target is another machine, and nobody said that it may be loaded."""


@dataclass(frozen=True)
class Target:
    """The address that photographs are posted to."""

    scheme: str
    host: str
    port: int
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, url: str, headers: Mapping[str, str] | None = None, allow_remote: bool = False) -> "Target":
        """Read a URL.

        Raises:
            RemoteTargetError: it leads to another machine and ``allow_remote`` is not set.
            ValueError: it is not an http or https address.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"the address must look like http://127.0.0.1:8080/predictions/flowers, not {url!r}")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        if not allow_remote and not _is_loopback(parts.hostname):
            raise RemoteTargetError(
                f"{parts.hostname} is another machine. A load test can take it down: add --allow-remote if it is yours"
            )
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(parts.scheme, parts.hostname, port, path, headers or {})

    @property
    def origin(self) -> str:
        """Scheme, host and port, as Locust's --host wants them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole address."""
        return self.origin + self.path

    def request(self, body: bytes) -> bytes:
        """Return the whole HTTP/1.1 request that posts ``body``, ready to be written to a socket."""
        lines = [
            f"POST {self.path} HTTP/1.1",
            f"Host: {self.host}:{self.port}",
            "Content-Type: application/octet-stream",
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body


def parse_headers(entries: list[str]) -> dict[str, str]:
    """Read ``Name: value`` entries; ValueError says which cannot be read."""
    headers = {}
    for entry in entries:
        name, colon, value = entry.partition(":")
        if not colon or not name.strip() or any(character in entry for character in "\r\n"):
            raise ValueError(f"a header is written 'Name: value', not {entry!r}")
        headers[name.strip()] = value.strip()
    return headers


def _is_loopback(host: str) -> bool:
    try:
        found = socket.getaddrinfo(host, None)
    except OSError as error:
        raise ValueError(f"{host} has no address: {error}") from error
    return all(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]).is_loopback for entry in found)
