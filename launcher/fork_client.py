"""Fork client: what Java runs as a worker's Python; lets fork_server.py fork the worker, and ends when that ends.

Without a server it becomes the Python that Java meant. It is run with -IS, imports little and takes 5 MB.
"""

import json
import os
import socket
import sys

_STREAMS = (0, 1, 2)


def main(address: str, arguments: list[str]) -> None:
    """Stand for a worker as long as it runs; never returns."""
    request = {"arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd()}  # noqa: PTH109
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(address)
            socket.send_fds(connection, [json.dumps(request).encode()], _STREAMS)
            forked = bool(connection.recv(1))
            if forked:
                connection.recv(1)  # nothing comes: the worker's end
    except OSError:
        forked = False
    if forked:
        os._exit(1)
    print(
        "The fork server has ended: this worker imports torch itself, which takes seconds.", file=sys.stderr, flush=True
    )
    os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
