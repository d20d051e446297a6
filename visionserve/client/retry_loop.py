"""Exchange: the attempts of one call, judged: is this the reply, or shall the client wait and try again?"""

from visionserve.client.errors import ServiceUnreachable
from visionserve.client.http_messages import Broken, Reply
from visionserve.client.retry import RETRIED, Attempts, Retries


class Exchange:
    """One call and its retries, which must end within ``timeout_s`` altogether."""

    def __init__(self, url: str, retries: Retries, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._attempts = Attempts(retries, timeout_s)

    @property
    def remaining_s(self) -> float:
        """How long the next attempt may take."""
        return self._attempts.remaining_s

    def after(self, found: Reply | Broken) -> Reply | float:
        """Return the reply to go on with, or how many seconds to wait before the next attempt.

        Raises:
            ServiceUnreachable: nothing answered and it is no use to wait longer.
        """
        if isinstance(found, Reply):
            if found.status not in RETRIED:
                return found
            pause = self._attempts.pause_s(found.headers.get("retry-after"))
            return found if pause is None else pause
        if found.slow:
            raise ServiceUnreachable(self._url, f"no answer within {self._timeout_s:g} s")
        pause = self._attempts.pause_s()
        if pause is None:
            raise ServiceUnreachable(self._url, found.reason)
        return pause
