"""Send one HTTP request over a kept-alive connection, by httpx; sending again is the client's part.

What httpx does not do by itself: a time limit for the whole exchange (deadlines.py); proxies
by the rules of proxies.py; errors of TLS in words that say what to do.
"""

import asyncio
import os
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol
from urllib.parse import urlsplit

from visionserve.client.deadlines import AsyncLookUpBackend, Deadline, DeadlineBackend
from visionserve.client.errors import Cause
from visionserve.client.http_messages import Call, NoReply, Reply
from visionserve.client.proxies import proxy_for
from visionserve.client.urls import without_password

# What OpenSSL says when the other side does not speak TLS at all.
_PLAIN_HTTP = (
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "RECORD_LAYER_FAILURE",
    "PACKET_LENGTH_TOO_LONG",
    "UNKNOWN_PROTOCOL",
)
_OTHER_HOST = (62, 64)  # OpenSSL's codes for a certificate that has another name or address
# Sockets count milliseconds in 31 bits: a longer time, "for ever" included, is this one.
_LONGEST_S = 1e6


class Transport(Protocol):
    """Sends requests one by one; may be used by several threads."""

    def send(self, call: Call, timeout_s: float) -> Reply | NoReply:
        """Return the reply, of whatever status, or what went wrong below HTTP."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


@dataclass(frozen=True)
class Tls:
    """How a server's certificate is checked: against ``cacert`` (a PEM file), or not at all if ``insecure``."""

    cacert: PathLike[str] | str | None = None
    insecure: bool = False

    def context(self, environment: Mapping[str, str] = os.environ) -> ssl.SSLContext:
        """Return the context of https connections.

        Certificate authorities are those of ``cacert``, else of SSL_CERT_FILE and SSL_CERT_DIR, else of certifi.

        Raises:
            ValueError: a file with certificates does not exist or has none, or SSLKEYLOGFILE cannot be written.
        """
        if keys := environment.get("SSLKEYLOGFILE"):  # which ssl opens without saying so when that fails
            try:
                Path(keys).open("ab").close()
            except OSError as error:
                raise ValueError(f"SSLKEYLOGFILE {keys} cannot be written: {error.strerror}.") from error
        if self.insecure:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context
        file = str(self.cacert) if self.cacert is not None else environment.get("SSL_CERT_FILE")
        folder = None if self.cacert is not None else environment.get("SSL_CERT_DIR")
        if not file and not folder:
            import certifi

            file = certifi.where()
        source = "the certificate file" if self.cacert is not None else "SSL_CERT_FILE"
        try:
            return ssl.create_default_context(cafile=file or None, capath=folder or None)
        except ssl.SSLError as error:
            raise ValueError(f"{source} {file} has no certificates in PEM form.") from error
        except OSError as error:
            raise ValueError(f"{source} {file} cannot be read: {error.strerror}.") from error


class HttpxTransport:
    """A Transport by httpx."""

    def __init__(self, connections: int, urls: Iterable[str], tls: Tls = Tls()) -> None:
        """Prepare connections to the servers at ``urls``; ValueError when a proxy or a certificate file is invalid."""
        self._httpx = _import_httpx()
        self._deadline = Deadline()
        self._servers = _servers(self._httpx, urls, tls, lambda options: self._client(connections, options))

    def send(self, call: Call, timeout_s: float) -> Reply | NoReply:
        """Return the reply, of whatever status, or what went wrong below HTTP."""
        client, proxy = self._servers[_origin(call.url)]
        timeout_s = min(timeout_s, _LONGEST_S)
        self._deadline.at = time.monotonic() + timeout_s
        try:
            response = client.request(
                call.method, call.url, headers=dict(call.headers), content=call.body or None, timeout=timeout_s
            )
        except (self._httpx.TransportError, self._httpx.DecodingError) as error:
            return no_reply(error, isinstance(error, self._httpx.TimeoutException), proxy)
        return _reply(response, proxy)

    def close(self) -> None:
        """Close the connections."""
        for client, _ in self._servers.values():
            client.close()

    def _client(self, connections: int, options: dict[str, Any]) -> Any:
        limits = self._httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        transport = self._httpx.HTTPTransport(limits=limits, trust_env=False, **options)
        # httpx passes no backend on to its pool, and has no time limit but that of each single read.
        pool = transport._pool
        pool._network_backend = DeadlineBackend(pool._network_backend, self._deadline)
        return self._httpx.Client(transport=transport, trust_env=False)


class AsyncHttpxTransport:
    """The same for asyncio."""

    def __init__(self, connections: int, urls: Iterable[str], tls: Tls = Tls()) -> None:
        """Prepare connections to the servers at ``urls``; ValueError when a proxy or a certificate file is invalid."""
        self._httpx = _import_httpx()
        self._servers = _servers(self._httpx, urls, tls, lambda options: self._client(connections, options))

    async def send(self, call: Call, timeout_s: float) -> Reply | NoReply:
        """Return the reply, of whatever status, or what went wrong below HTTP."""
        client, proxy = self._servers[_origin(call.url)]
        timeout_s = min(timeout_s, _LONGEST_S)
        try:
            async with asyncio.timeout(timeout_s):
                response = await client.request(
                    call.method, call.url, headers=dict(call.headers), content=call.body or None, timeout=timeout_s
                )
        except TimeoutError as error:
            return no_reply(error, True, proxy)
        except (
            self._httpx.TransportError,
            self._httpx.DecodingError,
            ssl.SSLError,
        ) as error:  # asyncio's are not httpx's
            return no_reply(error, isinstance(error, self._httpx.TimeoutException), proxy)
        return _reply(response, proxy)

    async def close(self) -> None:
        """Close the connections."""
        for client, _ in self._servers.values():
            await client.aclose()

    def _client(self, connections: int, options: dict[str, Any]) -> Any:
        limits = self._httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        transport = self._httpx.AsyncHTTPTransport(limits=limits, trust_env=False, **options)
        pool = transport._pool
        pool._network_backend = AsyncLookUpBackend(pool._network_backend)
        return self._httpx.AsyncClient(transport=transport, trust_env=False)


def no_reply(error: BaseException, timed_out: bool, proxy: str = "") -> NoReply:
    """Return an exception in few words: its innermost cause is the clearest ("Connection refused")."""
    inner = error
    while (nested := inner.__cause__ or inner.__context__) is not None:
        inner = nested
    reason, cause = _in_words(inner)
    if type(error).__name__ == "ProxyError" or (proxy and cause == "connection"):
        reason, cause = f"the proxy {proxy} failed: {reason}", "proxy"
    return NoReply(reason, "timeout" if timed_out else cause)


def _in_words(error: BaseException) -> tuple[str, Cause]:
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = f"its certificate is not trusted: {error.verify_message.rstrip('.')}"
        return reason, "address" if error.verify_code in _OTHER_HOST else "certificate"
    if isinstance(error, ssl.SSLError):
        if error.reason in _PLAIN_HTTP:
            return "it does not use TLS: try http:// instead of https://", "address"
        what = (error.reason or str(error)).lower().replace("_", " ")
        if "certificate required" in what:
            return "it asks for a certificate of the client, and this client has none", "address"
        # An alert is what the other side has decided, and decides again.
        return f"the TLS connection failed: {what}", "address" if "alert" in what else "connection"
    text = str(error)
    if isinstance(error, OSError) and error.errno and error.strerror:
        # asyncio writes the address into strerror; a failed look-up of a name has no errno of the system.
        text = os.strerror(error.errno) if error.errno > 0 else error.strerror
    return text.rstrip(".") or type(error).__name__, "connection"


def _servers(
    httpx: ModuleType, urls: Iterable[str], tls: Tls, client: Callable[[dict[str, Any]], Any]
) -> dict[tuple[str, str | None, int | None], tuple[Any, str]]:
    """Return by origin: a client, and the proxy it uses as it may be shown."""
    servers = {}
    for url in {_origin(url): url for url in urls}.values():
        proxy = proxy_for(url)
        _check_host(httpx, url)
        if proxy is not None:
            _check_host(httpx, proxy, "The proxy ")
        options: dict[str, Any] = {"verify": tls.context() if urlsplit(url).scheme == "https" else False}
        if proxy is not None:
            options["proxy"] = proxy
        try:
            servers[_origin(url)] = (client(options), without_password(proxy) if proxy else "")
        except (ImportError, ValueError) as error:  # SOCKS needs a package of its own; other schemes are not proxies
            raise ValueError(f"The proxy {without_password(proxy or '')} cannot be used: {error}") from error
    return servers


def _check_host(httpx: ModuleType, url: str, what: str = "") -> None:
    """Raise ValueError for a name that is no host's, which a look-up would raise as an error of another kind."""
    try:
        httpx.URL(url).host.encode("idna")
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ValueError(f"{what}{without_password(url)!r} has no valid host name.") from error


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _reply(response: Any, proxy: str) -> Reply:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Reply(response.status_code, headers, response.content, proxy)


def _import_httpx() -> ModuleType:
    """Import httpx when a client is made, so that errors and results can be imported without it."""
    try:
        import httpx
    except ImportError as error:
        raise ImportError("The client needs httpx: pip install httpx.") from error
    return httpx
