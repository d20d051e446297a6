"""HTTP/1.1 over kept-alive connections, with as little work per request as a load generator needs.

A request is one ready-made bytes object and the response's head is searched, not parsed: the generator shares its cores
with the service that it measures, and what it uses itself would be read as the service's. Measured with 50 KB bodies:
0.22 ms of CPU per request with all bookkeeping, half of what Locust's FastHttpUser takes.
"""

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:\s*close", re.IGNORECASE)
_TIMING = re.compile(rb"\r\nserver-timing:([^\r]*)", re.IGNORECASE)
_END = b"\r\n\r\n"


class RemoteTargetError(ValueError):
    """The target is another machine, and --allow-remote is not set."""


@dataclass(frozen=True)
class Target:
    """Where the load goes: the address that images are posted to."""

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
                f"{parts.hostname} is another machine. A load test can take it down: --allow-remote allows it"
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
        """The complete address."""
        return self.origin + self.path

    def request(self, body: bytes) -> bytes:
        """Return the complete HTTP/1.1 request that posts ``body``, ready to be written to a socket."""
        lines = [
            f"POST {self.path} HTTP/1.1",
            f"Host: {self.host}:{self.port}",
            "Content-Type: application/octet-stream",
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body


class NoResponseError(Exception):
    """No usable response came; the message says why in a few words."""


@dataclass(frozen=True)
class Response:
    """A response; ``reusable`` says whether its connection may carry another request."""

    status: int
    body: bytes
    server_timing: str
    reusable: bool


class Connection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._received = bytearray()
        self._response: asyncio.Future[Response] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport: asyncio calls this."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Collect bytes until a response is complete: asyncio calls this."""
        self._received += data
        if self._response is None or self._response.done():
            self._transport.abort()  # bytes without a request: they would be read as the next response
            return
        end = self._received.find(_END)
        if end < 0:
            return
        head = bytes(self._received[: end + 2])
        length = _LENGTH.search(head)
        if length is None:
            self._fail("a response without Content-Length")
        elif len(self._received) >= end + 4 + int(length[1]):
            self._finish(head, bytes(self._received[end + 4 :]))

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the request that waits: asyncio calls this."""
        self._fail(f"connection lost ({type(exc).__name__})" if exc else "connection closed by the service")

    async def exchange(self, request: bytes, timeout_s: float) -> Response:
        """Send a request and return its response; NoResponseError when none comes in time."""
        loop = asyncio.get_running_loop()
        self._received.clear()
        self._response = loop.create_future()
        alarm = loop.call_later(timeout_s, self._fail, f"no response within {timeout_s:g} s")
        try:
            self._transport.write(request)
            return await self._response
        finally:
            alarm.cancel()

    @property
    def open(self) -> bool:
        """Whether it can still carry a request."""
        return not self._transport.is_closing()

    def close(self) -> None:
        """Close it at once."""
        self._transport.abort()

    def _finish(self, head: bytes, body: bytes) -> None:
        # A response that came before the request was sent completely leaves the connection out of step.
        in_step = self._transport.get_write_buffer_size() == 0
        timing = _TIMING.search(head)
        text = timing[1].decode("latin-1") if timing else ""
        if self._response is not None:
            self._response.set_result(Response(int(head[9:12]), body, text, in_step and not _CLOSE.search(head)))

    def _fail(self, reason: str) -> None:
        if self._response is not None and not self._response.done():
            self._response.set_exception(NoResponseError(reason))
        self._transport.abort()


class Pool:
    """Kept-alive connections to one target."""

    def __init__(self, target: Target, timeout_s: float) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._idle: list[Connection] = []
        self._ssl = ssl.create_default_context() if target.scheme == "https" else None

    async def exchange(self, request: bytes) -> Response:
        """Send a request over an idle connection, or over a new one; NoResponseError when none comes."""
        connection = await self._connection()
        try:
            response = await connection.exchange(request, self._timeout_s)
        except BaseException:
            connection.close()
            raise
        if response.reusable and connection.open:
            self._idle.append(connection)
        else:
            connection.close()
        return response

    def close(self) -> None:
        """Close every idle connection."""
        while self._idle:
            self._idle.pop().close()

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                return connection
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeout_s):
                _, connection = await loop.create_connection(
                    Connection, self._target.host, self._target.port, ssl=self._ssl
                )
        except (OSError, TimeoutError) as error:
            raise NoResponseError(f"no connection ({type(error).__name__})") from error
        return connection


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
        addresses = socket.getaddrinfo(host, None)
    except OSError as error:
        raise ValueError(f"cannot resolve {host}: {error}") from error
    return all(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]).is_loopback for entry in addresses)
