"""TCP info: which clients of a local port still wait for something, from the kernel (sock_diag(7)).

The kernel knows for every connection when data last came in and whether data still has to go out. That separates a
client that only keeps its connection open from one that is sending, and from one that has not read its answer yet.
"""

import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_REQUEST, _DUMP = 0x1, 0x300
_DONE, _ERROR = 3, 2
_ESTABLISHED = 1
_INFO = 2
_HEADER = struct.Struct("=IHHII")
_TIMEOUT_S = 2.0
_BUFFER = 1 << 16
# struct inet_diag_msg: ports after 4 bytes, in network order; queues after the socket id (48 bytes) and `expires`.
_PORTS, _QUEUES, _MESSAGE_BYTES = struct.Struct("!HH"), struct.Struct("=II"), 72
# struct tcp_info: eight bytes, then 32-bit numbers; tcpi_last_data_recv is the twelfth of them.
_LAST_RECEIVED = 8 + 11 * 4


@dataclass(frozen=True)
class Connection:
    """A client's connection: bytes that still have to be sent to it, and how long ago its last data came in."""

    client_port: int
    unsent_bytes: int
    silent_s: float


def busy(ports: Collection[int], since_s: float) -> bool:
    """Whether a client of these ports sent something in the last ``since_s`` seconds or has not got all of its answer.

    Raises:
        OSError: the kernel does not report it, for instance in a sandbox.
    """
    return any(c.unsent_bytes or c.silent_s <= since_s for port in ports for c in established(port))


def established(port: int) -> list[Connection]:
    """Return the established connections to a local port; raises OSError."""
    return [connection for family in (socket.AF_INET, socket.AF_INET6) for connection in _dump(family, port)]


def _dump(family: int, port: int) -> Iterator[Connection]:
    # struct inet_diag_req_v2; the local port is where the dump starts to select.
    request = struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 1 << (_INFO - 1), 0, 1 << _ESTABLISHED)
    request += _PORTS.pack(port, 0) + bytes(44)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(_TIMEOUT_S)
        kernel.send(_HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _REQUEST | _DUMP, 1, 0) + request)
        while True:
            for kind, body in _messages(kernel.recv(_BUFFER)):
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    raise OSError(-struct.unpack_from("=i", body)[0], "the kernel does not list connections")
                if _PORTS.unpack_from(body, 4)[0] == port:
                    yield _connection(body)


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _HEADER.size:
        length, kind, _, _, _ = _HEADER.unpack_from(data)
        yield kind, data[_HEADER.size : length]
        data = data[(length + 3) & ~3 :]


def _connection(body: bytes) -> Connection:
    _, client_port = _PORTS.unpack_from(body, 4)
    _, unsent = _QUEUES.unpack_from(body, 56)
    attributes, silent_ms = body[_MESSAGE_BYTES:], 0
    while len(attributes) >= 4:
        length, kind = struct.unpack_from("=HH", attributes)
        if kind == _INFO:
            (silent_ms,) = struct.unpack_from("=I", attributes, 4 + _LAST_RECEIVED)
        attributes = attributes[(length + 3) & ~3 :]
    return Connection(client_port, unsent, silent_ms / 1000)
