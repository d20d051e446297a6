"""The gateway's limits for each nginx worker: how much of TorchServe's memory and of its own clients may use.

    server's cores and memory --launcher.plan--> Java's heap and direct memory --> places for small and for large bodies

A request takes a *place* when its body has arrived whole, and holds it until TorchServe has answered. Java holds a body
of n bytes twice, so the places bound the bytes in flight. Before that it is an *upload*, which costs a connection and,
above a buffer in memory, room in the folder for bodies: a client may have many small uploads and few large ones.

nginx would count shared by all its workers in memory that survives a worker, and what a killed worker held would count
for ever. So each worker counts for itself and gets its share.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from launcher import resources
from launcher.plan import make_plan

# -Xmx and MaxDirectMemorySize of config.properties: a plan leaves Java at most this much of each.
_JAVA_BYTES = 1 << 30
# The rest of that memory is for Java itself.
_BODIES_SHARE = 0.6
_COPIES = 2
# Of what bodies get, for those below 1 MB.
_SMALL_SHARE = 0.25
_SMALL_BYTES = 1_000_000
# Below TorchServe's queue of 100, beyond which it answers 503.
_MAX_PLACES = 64
# Uploads of one client: of over 64 KB, and of 1 MB or more, as shares of all its uploads.
_MEDIUM_SHARE, _LARGE_SHARE = 2, 64


@dataclass(frozen=True)
class Limits:
    """Requests at once in one nginx worker; ``small`` and ``large`` are places by the size of the body."""

    small: int
    large: int
    small_per_client: int
    large_per_client: int
    uploads: int
    uploads_per_client: int
    medium_uploads_per_client: int
    large_uploads_per_client: int

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> "Limits":
        """Return the limits that follow from the gateway's options."""
        cpus = options["server_cpus"] or resources.cpus()
        memory_bytes = options["server_memory"] or resources.memory_bytes()
        by_memory = places(cpus, memory_bytes, options["max_body_mib"] << 20)
        small, large = options["concurrency"] or by_memory[0], options["large_concurrency"] or by_memory[1]
        workers, per_client = options["workers"], options["per_client"]
        uploads = options["uploads_per_client"]
        return cls(
            small=_share(small, workers),
            large=_share(min(large, small) if options["concurrency"] else large, workers),
            small_per_client=_share(per_client or (small + 1) // 2, workers),
            large_per_client=_share(min(per_client, large) or (large + 1) // 2, workers),
            uploads=_share(options["uploads"], workers),
            uploads_per_client=_share(uploads, workers),
            medium_uploads_per_client=_share(uploads // _MEDIUM_SHARE, workers),
            large_uploads_per_client=_share(uploads // _LARGE_SHARE, workers),
        )


def places(cpus: float, memory_bytes: int | None, max_body_bytes: int) -> tuple[int, int]:
    """Return how many small and how many large bodies Java may hold at once in a server of this size."""
    java_bytes = min(make_plan(cpus, memory_bytes).heap_bytes or _JAVA_BYTES, _JAVA_BYTES)
    bodies_bytes = java_bytes * _BODIES_SHARE / _COPIES
    small = int(bodies_bytes * _SMALL_SHARE / _SMALL_BYTES)
    large = int(bodies_bytes * (1 - _SMALL_SHARE) / max_body_bytes)
    return min(_MAX_PLACES, max(1, small)), min(_MAX_PLACES // 2, max(1, large))


def _share(count: int, workers: int) -> int:
    return max(1, count // workers)
