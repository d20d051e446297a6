"""The gateway's limits for each nginx worker: how much of TorchServe's memory and of its own clients may use.

    server's cores and memory --launcher.plan--> Java's memory, places for small and for large bodies

A request takes a *place* when its body has arrived whole, and holds it until TorchServe has answered. The
places bound the bytes that Java holds. Before that it is an *upload*, which costs a connection and,
above a buffer in memory, room in the folder for bodies: a client may have many small uploads and few large ones.

nginx would count shared by all its workers in memory that survives a worker, and what a killed worker held would count
for ever. So each worker counts for itself and gets its share.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from launcher import resources
from launcher.plan import make_plan

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
        plan = make_plan(cpus, memory_bytes)
        small, large = options["concurrency"] or plan.small_places, options["large_concurrency"] or plan.large_places
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


def _share(count: int, workers: int) -> int:
    return max(1, count // workers)
