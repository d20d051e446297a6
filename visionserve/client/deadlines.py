"""A time limit for a whole exchange, for httpx and httpcore, whose limits are for each single read and write.

A server that sends a byte now and then never exceeds those. Here each step may take what is left of the whole time.
"""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

_WRITTEN_AT_ONCE = 1 << 16  # bytes, so that the limit also holds for a slow upload


class Deadline(threading.local):
    """When the exchange of the present thread must be over, by time.monotonic()."""

    at = float("inf")

    def left(self, timeout: float | None, error: type[Exception]) -> float:
        """Return the seconds left, at most ``timeout``; raises ``error`` when there are none."""
        remaining = self.at - time.monotonic()
        if remaining <= 0:
            raise error("timed out")
        return remaining if timeout is None else min(timeout, remaining)


class DeadlineBackend:
    """httpcore's network backend, whose every step ends at the deadline of its thread."""

    def __init__(self, backend: Any, deadline: Deadline) -> None:
        self._backend = backend
        self._deadline = deadline

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **options: Any) -> Any:
        """Return a stream whose every step ends at the deadline too.

        The look-up of the name has no time limit, and each of its addresses may take the whole of one: so both run in
        another thread, which is left alone when the time is over.
        """
        import httpcore

        left = self._deadline.left(timeout, httpcore.ConnectTimeout)
        connecting = _Connecting(lambda: self._backend.connect_tcp(host, port, left, **options))
        return _DeadlineStream(connecting.result(left, httpcore.ConnectTimeout), self._deadline)


class AsyncLookUpBackend:
    """httpcore's asynchronous network backend, which looks names up in threads that nothing waits for.

    asyncio's own run in an executor, for which `asyncio.run` and the end of the program wait: a name server that does
    not answer would hold them long after the time limit of the request.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    async def connect_tcp(self, host: str, port: int, timeout: float | None = None, **options: Any) -> Any:
        """Return a stream, once the name has been looked up; asyncio looks it up again, as it chooses the address."""
        import httpcore

        loop = asyncio.get_running_loop()
        looked_up: asyncio.Future[None] = loop.create_future()

        def finish(error: OSError | None) -> None:
            if not looked_up.done():
                looked_up.set_result(None) if error is None else looked_up.set_exception(error)

        def look_up() -> None:
            error = None
            try:
                socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as failure:
                error = failure if isinstance(failure, OSError) else OSError(str(failure))
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(finish, error)

        threading.Thread(target=look_up, name="visionserve-look-up", daemon=True).start()
        try:
            await looked_up
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        return await self._backend.connect_tcp(host, port, timeout, **options)


class _Connecting:
    """Makes a connection in a daemon thread; one that comes too late is closed."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._future: Future[Any] = Future()
        threading.Thread(target=self._run, name="visionserve-connect", daemon=True).start()

    def result(self, timeout_s: float, error: type[Exception]) -> Any:
        """Return the connection; raises ``error`` after ``timeout_s``."""
        try:
            return self._future.result(timeout_s)
        except TimeoutError:
            self._future.add_done_callback(_close)
            raise error("timed out") from None

    def _run(self) -> None:
        try:
            self._future.set_result(self._connect())
        except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
            self._future.set_exception(error)


def _close(future: Future[Any]) -> None:
    if future.exception() is None:
        future.result().close()


class _DeadlineStream:
    def __init__(self, stream: Any, deadline: Deadline) -> None:
        import httpcore

        self._core = httpcore
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        read: bytes = self._stream.read(max_bytes, self._deadline.left(timeout, self._core.ReadTimeout))
        return read

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _WRITTEN_AT_ONCE):
            left = self._deadline.left(timeout, self._core.WriteTimeout)
            self._stream.write(buffer[start : start + _WRITTEN_AT_ONCE], left)

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None) -> Any:
        left = self._deadline.left(timeout, self._core.ConnectTimeout)
        return _DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
