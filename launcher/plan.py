"""Plan: workers, Java's memory and the requests it may hold at once, from the cores and the memory of a server.

    limit = launcher and JVM + workers + heap + direct memory

What a client sends is in Java twice: in direct memory while it arrives and while it is passed to a worker, on the heap
in between. So bytes in flight are bounded by two numbers of places, which the gateway enforces with 429: small bodies
are below 1 MB, as most images are; large ones have up to TorchServe's limit of 16 MiB. Imports nothing of the launcher:
the gateway's plan is this one too.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

_MB = 1_000_000
# Measured, 2026-11-28 (docs/LOG.md): the launcher, and the JVM beside its heap and direct memory.
_FIXED_BYTES = 120 * _MB
# A warm worker of the shipped model, and what an image of as many pixels as the limits allow needs while it is decoded.
_WORKER_BYTES, _IMAGE_BYTES = 420 * _MB, 165 * _MB
# A large body in a worker: read from the socket, copied, parsed as JSON. Four and a half times its size.
_LARGE_IN_WORKER_BYTES = 75 * _MB
SMALL_BYTES = 1 * _MB
LARGE_BYTES = 16 << 20
# Java's heap without any request.
_HEAP_BYTES = 60 * _MB
# A worker's batch is encoded into a buffer that grows by copying: up to 1.75 times its large bodies.
_ENCODED = 1.75
# While a body arrives its parts are put together, in two threads; and netty's arenas round up.
_DIRECT_BYTES = 2 * LARGE_BYTES + 30 * _MB
# TorchServe's queue holds 100 requests; probes need some of it.
_MOST_SMALL, _MOST_LARGE = 64, 16
_LEAST_SMALL = 16
# Large bodies for each worker: one batch of four; more would only wait.
_LARGE_PER_WORKER = 4
# As config.properties has both: without a memory limit.
_UNLIMITED_BYTES = 1 << 30


@dataclass(frozen=True)
class Plan:
    """How a server uses its limits.

    Workers of each CPU model, and how many models there are (each version is one); the JVM's processors, heap and
    direct memory; how many requests with bodies of less than `SMALL_BYTES`, and of more, may be in TorchServe at once.
    """

    workers: int
    processors: int
    heap_bytes: int
    direct_bytes: int
    small_places: int
    large_places: int
    models: int = 1

    @property
    def total_bytes(self) -> int:
        """The most memory that everything together uses."""
        workers = self.workers * self.models
        in_workers = workers * (_WORKER_BYTES + _IMAGE_BYTES) + self.large_places * _LARGE_IN_WORKER_BYTES
        return _FIXED_BYTES + in_workers + self.heap_bytes + self.direct_bytes


def make_plan(cpus: float, memory_bytes: int | None) -> Plan:
    """Return the plan for that many cores and that much memory; without a limit, the largest.

    A worker per core begun, as TorchServe would start them: the last one shares. Workers come first, then places for
    small bodies, then for large ones. Below `LEAST_BYTES` the least plan is returned, which does not fit.
    """
    processors = max(1, math.ceil(cpus))
    if memory_bytes is None:
        return Plan(processors, processors, _UNLIMITED_BYTES, _UNLIMITED_BYTES, _MOST_SMALL, _most_large(processors))

    def fits(workers: int, small: int, large: int) -> bool:
        return _plan(workers, processors, small, large).total_bytes <= memory_bytes

    workers = next((n for n in range(processors, 1, -1) if fits(n, _LEAST_SMALL, _least_large(n))), 1)
    large = _least_large(workers)
    small = next((n for n in (_MOST_SMALL, _MOST_SMALL // 2) if fits(workers, n, large)), _LEAST_SMALL)
    large = next((n for n in range(_most_large(workers), large, -1) if fits(workers, small, n)), large)
    return _plan(workers, processors, small, large)


def _plan(workers: int, processors: int, small: int, large: int) -> Plan:
    bodies = small * SMALL_BYTES + large * LARGE_BYTES
    encoded = int(_ENCODED * large * LARGE_BYTES)
    return Plan(workers, processors, _HEAP_BYTES + bodies + encoded, _DIRECT_BYTES + bodies, small, large)


def _most_large(workers: int) -> int:
    return min(_MOST_LARGE, _LARGE_PER_WORKER * workers)


def _least_large(workers: int) -> int:
    return -(-workers // 2)


def share_workers(plan: Plan, models: int, memory_bytes: int) -> Plan:
    """Return the plan for several models: as many workers of each as the memory holds, at most those of one model.

    Java's memory and the places stay, so the gateway needs not know the models. One worker each is the least, which
    may not fit.
    """
    shared = [replace(plan, workers=workers, models=models) for workers in range(plan.workers, 0, -1)]
    return next((candidate for candidate in shared if candidate.total_bytes <= memory_bytes), shared[-1])


# Java and one worker: a limit below it is refused.
LEAST_BYTES = _plan(1, 1, _LEAST_SMALL, _least_large(1)).total_bytes
# What of it must be free when the launcher already runs.
LEAST_FREE_BYTES = LEAST_BYTES - _FIXED_BYTES


def fit_vmargs(vmargs: str, plan: Plan) -> str:
    """Return JVM options with the plan's processors, and with its memory where that is less than what they state."""
    sizes = {"-Xmx": plan.heap_bytes, "-XX:MaxDirectMemorySize=": plan.direct_bytes}
    options = [option for option in vmargs.split() if not option.startswith("-XX:ActiveProcessorCount=")]
    return " ".join([*(_capped(option, sizes) for option in options), f"-XX:ActiveProcessorCount={plan.processors}"])


def _capped(option: str, sizes: Mapping[str, int]) -> str:
    for name, size in sizes.items():
        if option.startswith(name) and _java_bytes(option.removeprefix(name)) > size:
            return f"{name}{size >> 20}m"
    return option


def _java_bytes(text: str) -> int:
    """Read a size as Java writes it, "1g" or "512m"."""
    factor: Mapping[str, int] = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
    number, unit = (text[:-1], text[-1].lower()) if text[-1:].isalpha() else (text, "")
    return int(number) * factor.get(unit, 1) if number.isdecimal() else 0
