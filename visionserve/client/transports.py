"""Send one HTTP request over a kept-alive connection, by httpx; sending again is the client's part."""

import os
from types import ModuleType
from typing import Protocol

from visionserve.client.http_messages import Call, NoReply, Reply


class Transport(Protocol):
    """Sends requests one by one; may be used by several threads."""

    def send(self, call: Call, timeout_s: float) -> Reply | NoReply:
        """Return the reply, of whatever status, or what went wrong below HTTP."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class HttpxTransport:
    """A Transport by httpx."""

    def __init__(self, connections: int) -> None:
        self._httpx = _import_httpx()
        limits = self._httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._client = self._httpx.Client(limits=limits)

    def send(self, call: Call, timeout_s: float) -> Reply | NoReply:
        """Return the reply, of whatever status, or what went wrong below HTTP."""
        try:
            response = self._client.request(
                call.method, call.url, headers=dict(call.headers), content=call.body or None, timeout=timeout_s
            )
        except self._httpx.TransportError as error:
            return no_reply(error, isinstance(error, self._httpx.TimeoutException))
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Reply(response.status_code, headers, response.content)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class AsyncHttpxTransport:
    """The same for asyncio."""

    def __init__(self, connections: int) -> None:
        self._httpx = _import_httpx()
        limits = self._httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._client = self._httpx.AsyncClient(limits=limits)

    async def send(self, call: Call, timeout_s: float) -> Reply | NoReply:
        """Return the reply, of whatever status, or what went wrong below HTTP."""
        try:
            response = await self._client.request(
                call.method, call.url, headers=dict(call.headers), content=call.body or None, timeout=timeout_s
            )
        except self._httpx.TransportError as error:
            return no_reply(error, isinstance(error, self._httpx.TimeoutException))
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Reply(response.status_code, headers, response.content)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def no_reply(error: Exception, timed_out: bool) -> NoReply:
    """Return a transport's exception in few words: its innermost cause is the clearest ("Connection refused")."""
    inner: BaseException = error
    while (cause := inner.__cause__ or inner.__context__) is not None:
        inner = cause
    text = str(inner)
    if isinstance(inner, OSError) and inner.errno and inner.strerror:
        # asyncio writes the address into strerror; a failed look-up of a name has no errno of the system.
        text = os.strerror(inner.errno) if inner.errno > 0 else inner.strerror
    return NoReply(text.rstrip(".") or type(inner).__name__, timed_out)


def _import_httpx() -> ModuleType:
    """Import httpx when a client is made, so that errors and results can be imported without it."""
    try:
        import httpx
    except ImportError as error:
        raise ImportError("The client needs httpx: pip install httpx.") from error
    return httpx
