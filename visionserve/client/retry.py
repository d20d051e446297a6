"""When to send a request again, how long to wait before, and when to stop. Knows no network, so it is easy to test.

Waits grow exponentially and are drawn at random below that bound ("full jitter"), so that a thousand clients of a
service that comes back do not come back at the same moment; a Retry-After is the least that is waited.
"""

import email.utils
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from visionserve.client.errors import ServiceUnreachable
from visionserve.client.http_messages import NoReply, Reply, is_worker_failure

# The service is busy, restarting, or its proxy has lost it for a moment.
RETRIED = (429, 502, 503, 504)
# An image whose worker died may be the cause: it is sent again only so often, since each time may cost a worker.
WORKER_FAILURES = 2
# Waiting changes nothing about these.
_FINAL = ("certificate", "address")
# A share of what Retry-After asks for, on top of it: clients that got the same "1" should not return together.
_SPREAD = 0.25


@dataclass(frozen=True)
class Retries:
    """How often to try again, and the bounds of the waits between. ``Retries(0)`` never tries again."""

    count: int = 4
    first_s: float = 0.1
    largest_s: float = 5.0


class RetryLoop:
    """One call and its retries, which must end within ``timeout_s`` altogether.

    loop = RetryLoop(url, retries, timeout_s)
    while not isinstance(step := loop.after(send(call, loop.remaining_s)), Reply):
        sleep(step)
    """

    def __init__(self, url: str, retries: Retries, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._attempts = Attempts(retries, timeout_s)
        self._worker_failures = 0

    @property
    def remaining_s(self) -> float:
        """How long the next attempt may take."""
        return self._attempts.remaining_s

    def after(self, result: Reply | NoReply) -> Reply | float:
        """Return the reply to go on with, or how many seconds to wait before the next attempt.

        Raises:
            ServiceUnreachable: no reply came, and neither time nor attempts are left.
        """
        if isinstance(result, Reply):
            if is_worker_failure(result):
                self._worker_failures += 1
                if self._worker_failures > WORKER_FAILURES:
                    return result
            elif result.status not in RETRIED:
                return result
            pause = self._attempts.pause_s(result.headers.get("retry-after"))
            return result if pause is None else pause
        if result.cause == "timeout":
            raise ServiceUnreachable(self._url, f"no answer within {self._timeout_s:g} s", "timeout")
        pause = None if result.cause in _FINAL else self._attempts.pause_s()
        if pause is None:
            raise ServiceUnreachable(self._url, result.reason, result.cause)
        return pause


class Attempts:
    """The attempts of one call, which must end within ``timeout_s`` altogether."""

    def __init__(
        self,
        retries: Retries,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._retries = retries
        self._clock = clock
        self._draw = draw
        self._end = clock() + timeout_s
        self._failed = 0

    @property
    def remaining_s(self) -> float:
        """How much of the call's time is left; at least a millisecond, since 0 means "for ever" to some libraries."""
        return max(self._end - self._clock(), 0.001)

    def pause_s(self, retry_after: str | None = None) -> float | None:
        """Return how long to wait before the next attempt, or None when there shall be none.

        Args:
            retry_after: the header of that name, if the service sent one.
        """
        bound = min(self._retries.largest_s, self._retries.first_s * 2**self._failed)
        self._failed += 1
        least = seconds(retry_after)
        pause = bound * self._draw() if least is None else least * (1 + _SPREAD * self._draw())
        if self._failed > self._retries.count or pause >= self._end - self._clock():
            return None
        return pause


def seconds(retry_after: str | None, now: datetime | None = None) -> float | None:
    """Return what a Retry-After header asks for: a number of seconds or a date (RFC 9110, 10.2.3); None for junk."""
    if retry_after is None:
        return None
    if retry_after.strip().isascii() and retry_after.strip().isdigit():
        return float(retry_after)
    try:
        date = email.utils.parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    aware = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max((aware - (now or datetime.now(UTC))).total_seconds(), 0.0)
