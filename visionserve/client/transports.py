"""Transports: one request over a kept-alive connection, by httpx or, where that is not installed, by requests.

Neither tries again; that is the client's part.
"""

import os
from importlib import util
from typing import Protocol

from visionserve.client.http_messages import Broken, Call, Reply


class Transport(Protocol):
    """Sends requests one by one; may be used by several threads."""

    def send(self, call: Call, timeout_s: float) -> Reply | Broken:
        """Return the reply, of whatever status, or what went wrong below HTTP."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class HttpxTransport:
    """By httpx."""

    def __init__(self, connections: int) -> None:
        import httpx

        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._httpx = httpx
        self._client = httpx.Client(limits=limits)

    def send(self, call: Call, timeout_s: float) -> Reply | Broken:
        """Return the reply, of whatever status, or what went wrong below HTTP."""
        try:
            found = self._client.request(
                call.method, call.url, headers=dict(call.headers), content=call.body or None, timeout=timeout_s
            )
        except self._httpx.TransportError as error:
            return broken(error, isinstance(error, self._httpx.TimeoutException))
        return Reply(found.status_code, {name.lower(): value for name, value in found.headers.items()}, found.content)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class RequestsTransport:
    """By requests."""

    def __init__(self, connections: int) -> None:
        import requests
        from requests.adapters import HTTPAdapter

        self._requests = requests
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(pool_connections=connections, pool_maxsize=connections))

    def send(self, call: Call, timeout_s: float) -> Reply | Broken:
        """Return the reply, of whatever status, or what went wrong below HTTP."""
        try:
            found = self._session.request(
                call.method, call.url, headers=dict(call.headers), data=call.body or None, timeout=timeout_s,
                allow_redirects=False,
            )  # fmt: skip
        except self._requests.RequestException as error:
            return broken(error, isinstance(error, self._requests.Timeout))
        return Reply(found.status_code, {name.lower(): value for name, value in found.headers.items()}, found.content)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


class AsyncHttpxTransport:
    """By httpx, asynchronously."""

    def __init__(self, connections: int) -> None:
        import httpx

        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._httpx = httpx
        self._client = httpx.AsyncClient(limits=limits)

    async def send(self, call: Call, timeout_s: float) -> Reply | Broken:
        """Return the reply, of whatever status, or what went wrong below HTTP."""
        try:
            found = await self._client.request(
                call.method, call.url, headers=dict(call.headers), content=call.body or None, timeout=timeout_s
            )
        except self._httpx.TransportError as error:
            return broken(error, isinstance(error, self._httpx.TimeoutException))
        return Reply(found.status_code, {name.lower(): value for name, value in found.headers.items()}, found.content)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def default(connections: int) -> Transport:
    """Return a transport by what is installed; ImportError says what to install."""
    if util.find_spec("httpx") is not None:
        return HttpxTransport(connections)
    if util.find_spec("requests") is not None:
        return RequestsTransport(connections)
    raise ImportError("The client needs httpx or requests: pip install httpx.")


def broken(error: Exception, slow: bool) -> Broken:
    """Return a transport's exception in few words: its innermost cause knows best ("Connection refused")."""
    inner: BaseException = error
    while (cause := inner.__cause__ or inner.__context__) is not None:
        inner = cause
    text = str(inner)
    if isinstance(inner, OSError) and inner.errno and inner.strerror:
        # asyncio writes the address into strerror; a failed look-up of a name has no errno of the system.
        text = os.strerror(inner.errno) if inner.errno > 0 else inner.strerror
    return Broken(text.rstrip(".") or type(inner).__name__, slow)
