"""Work on many items at once, results in the items' order, never more than a few of them in memory.

The threads are daemons: a program that is interrupted ends at once, however long a request would still take.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, wait
from queue import SimpleQueue
from typing import Any, TypeVar

_STEP_S = 0.5

Item = TypeVar("Item")
Result = TypeVar("Result")


def ordered_map(
    executor: Executor, work: Callable[[Item], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    """Yield ``work(item)`` in the order of the items; at most ``ahead`` are started or wait to be yielded.

    An exception of ``work`` is raised after the results of the items before; what has not started by then never does.
    """
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(executor.submit(work, item))
            if len(waiting) >= ahead:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())
    finally:
        for future in waiting:
            future.cancel()


def _result(future: Future[Result]) -> Result:
    """Wait in steps: Python notices a signal that came just before a wait only when that wait ends."""
    while not future.done():
        wait([future], timeout=_STEP_S)
    return future.result()


class DaemonThreads(Executor):
    """A pool of threads that neither ``with`` nor the end of the program waits for, unlike ThreadPoolExecutor's."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        for _ in range(count):
            threading.Thread(target=self._work, name="visionserve", daemon=True).start()

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run ``work`` in a thread as soon as one is free."""
        future: Future[Any] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(work(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - raised where the result is read
                future.set_exception(error)

        self._tasks.put(run)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002
        """Let the threads end after their present tasks; returns at once."""
        for _ in range(self._count):
            self._tasks.put(None)

    def _work(self) -> None:
        while (run := self._tasks.get()) is not None:
            run()
