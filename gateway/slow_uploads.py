"""A total time for uploads, which nginx lacks: its time-out counts from one part of a body to the next.

Looks at nginx's connections from outside and ends those on which bytes have arrived for long without any response. The
kernel lets only the process that started nginx do that, so it works in `gateway run` and not where nginx runs alone.
"""

import contextlib
import ctypes
import errno
import os
import socket
import struct
import time
from collections.abc import Collection, Iterator

import psutil

# Of x86-64 and every architecture that is younger, https://man7.org/linux/man-pages/man2/pidfd_getfd.2.html
_SYS_PIDFD_GETFD = 438
# Of struct tcp_info: milliseconds since data was sent, at byte 44, and since data was received, at byte 52.
_TIMES = struct.Struct("=44xI4xI")


class SlowUploads:
    """Ends connections to ``ports`` that have been receiving for ``total_s`` seconds without any response."""

    def __init__(self, ports: Collection[int], total_s: int, pause_s: int) -> None:
        self._ports = ports
        self._total_s = total_s
        # A connection without data for longer is not an upload, and nginx ends it.
        self._pause_ms = pause_s * 1000 + 2000
        # By client: since when each look has found its connection receiving.
        self._since: dict[tuple[str, int], float] = {}

    def end(self, master: int) -> int:
        """End what is too slow in the workers of an nginx; return how many connections that were.

        Raises:
            PermissionError: the kernel does not allow it.
        """
        now = time.monotonic()
        receiving: dict[tuple[str, int], float] = {}
        ended = 0
        for worker in psutil.Process(master).children():
            for peer, connection in self._connections(worker):
                if self._receives(connection):
                    receiving[peer] = self._since.get(peer, now)
                    if now - receiving[peer] > self._total_s:
                        with contextlib.suppress(OSError):
                            connection.shutdown(socket.SHUT_RDWR)
                        ended += 1
        self._since = receiving
        return ended

    def _connections(self, worker: psutil.Process) -> Iterator[tuple[tuple[str, int], socket.socket]]:
        """Yield the clients of an nginx worker, and duplicates of its sockets."""
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            process = os.pidfd_open(worker.pid)
            try:
                for entry in worker.net_connections("tcp"):
                    if entry.status == psutil.CONN_ESTABLISHED and entry.laddr.port in self._ports:
                        connection = _duplicate(process, entry.fd)
                        if connection is not None:
                            with connection:
                                peer = _peer(connection)
                                # Else it was closed meanwhile, and the number may be another connection's.
                                if peer is not None and peer == tuple(entry.raddr):
                                    yield peer, connection
            finally:
                os.close(process)

    def _receives(self, connection: socket.socket) -> bool:
        """Whether data has just arrived on a connection, and none was sent on it for a time that allows an upload."""
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TIMES.size)
        since_sent_ms, since_received_ms = _TIMES.unpack(info)
        return bool(since_received_ms < self._pause_ms <= since_sent_ms)


def _duplicate(process: int, number: int) -> socket.socket | None:
    descriptor = ctypes.CDLL(None, use_errno=True).syscall(_SYS_PIDFD_GETFD, process, number, 0)
    if descriptor >= 0:
        try:
            return socket.socket(fileno=descriptor)
        except OSError:  # the number is a file's by now
            os.close(descriptor)
            return None
    if ctypes.get_errno() in (errno.EBADF, errno.ESRCH):
        return None
    raise PermissionError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _peer(connection: socket.socket) -> tuple[str, int] | None:
    """Return a client's address and port; None for other sockets, such as those between the gateway's two stages."""
    if connection.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        host, port, *_ = connection.getpeername()
    except OSError:
        return None
    return str(host), int(port)
