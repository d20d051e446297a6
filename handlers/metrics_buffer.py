"""Metrics buffer: counters and histograms of one process, summed and emitted at most once a second.

A server that reads metrics as lines of text pays for each of them, on both sides: at 300 images a second there were
1,600 lines a second, and are now some forty. A histogram is emitted as the counters that it consists of:
NAME_bucket for each bound (cumulative, with a label `le`), NAME_sum and NAME_count, so each has bounds that suit it.
"""

import threading
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

Labels = tuple[str, ...]
Emit = Callable[[str, float, Labels], None]
PERIOD_S = 1.0
_INFINITE = "+Inf"


class MetricsBuffer:
    """Sums what is added; ``emit(name, growth, labels)`` gets each sum that grew, in a separate thread.

    What was added just before the process ends, within `PERIOD_S`, may be lost.
    """

    def __init__(self, emit: Emit, bounds: Mapping[str, Sequence[float]], period_s: float = PERIOD_S) -> None:
        """Take the upper bounds of every histogram's buckets, in rising order, without the infinite one."""
        self._emit, self._bounds, self._period_s = emit, bounds, period_s
        self._buckets = {
            name: tuple((f"{name}_bucket", bound) for bound in (*map(str, upper), _INFINITE))
            for name, upper in bounds.items()
        }
        self._growth: defaultdict[tuple[str, Labels], float] = defaultdict(float)
        # How many values fell between two bounds; summed up when they are emitted.
        self._observed: defaultdict[tuple[str, Labels], Counter[int]] = defaultdict(Counter)
        self._adding, self._emitting = threading.Lock(), threading.Lock()
        self._grown = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, histogram: str, *labels: str) -> None:
        """Emit a histogram's counters at zero: quantiles need the buckets below the first observation as well."""
        with self._emitting:
            for name, bound in self._buckets[histogram]:
                self._emit(name, 0, (*labels, bound))
            for name in (f"{histogram}_sum", f"{histogram}_count"):
                self._emit(name, 0, labels)

    def add(self, name: str, value: float, *labels: str) -> None:
        """Add to a counter."""
        with self._adding:
            self._growth[name, labels] += value
        self._wake()

    def observe(self, histogram: str, value: float, *labels: str) -> None:
        """Count a value in a histogram."""
        with self._adding:
            self._observed[histogram, labels][bisect_left(self._bounds[histogram], value)] += 1
            self._growth[f"{histogram}_sum", labels] += value
            self._growth[f"{histogram}_count", labels] += 1
        self._wake()

    def flush(self) -> None:
        """Emit everything that was added until now; returns when it is done."""
        with self._emitting:
            with self._adding:
                growth, self._growth = self._growth, defaultdict(float)
                observed, self._observed = self._observed, defaultdict(Counter)
            for (histogram, labels), counts in observed.items():
                for name, bound, total in self._cumulative(histogram, counts):
                    growth[name, (*labels, bound)] += total
            for (name, labels), value in growth.items():
                self._emit(name, round(value, 6), labels)

    def _cumulative(self, histogram: str, counts: Counter[int]) -> Iterator[tuple[str, str, int]]:
        """Yield name, bound and growth of each bucket that grew."""
        total = 0
        for index, (name, bound) in enumerate(self._buckets[histogram]):
            total += counts[index]
            if total:
                yield name, bound, total

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="metrics-buffer", daemon=True)
            self._thread.start()
        if not self._grown.is_set():
            self._grown.set()

    def _run(self) -> None:
        while True:
            self._grown.wait()
            self._grown.clear()
            self.flush()
            time.sleep(self._period_s)
