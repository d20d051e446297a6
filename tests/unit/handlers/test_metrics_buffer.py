import threading
import time
from collections import defaultdict

from handlers.metrics_buffer import Labels, MetricsBuffer

NEVER = 3600.0


class Book:
    """Takes what a buffer hands on."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, float, Labels]] = []

    def __call__(self, name: str, value: float, labels: Labels) -> None:
        self.lines.append((name, value, labels))

    def sums(self) -> dict[tuple[str, Labels], float]:
        totals: dict[tuple[str, Labels], float] = defaultdict(float)
        for name, value, labels in self.lines:
            totals[name, labels] += value
        return {key: value for key, value in totals.items() if value}


def test_what_is_added_is_handed_on_once() -> None:
    book = Book()
    buffer = MetricsBuffer(book, {}, NEVER)
    for _ in range(3):
        buffer.add("images", 2, "rose")
    buffer.add("images", 1, "iris")
    buffer.flush()
    buffer.flush()
    assert book.sums() == {("images", ("rose",)): 6, ("images", ("iris",)): 1}


def test_a_value_counts_in_its_bucket_and_in_all_above_it() -> None:
    book = Book()
    buffer = MetricsBuffer(book, {"size": (1, 2, 4)}, NEVER)
    for value in (0.5, 2, 3, 9):
        buffer.observe("size", value, "m")
    buffer.flush()
    assert book.sums() == {
        ("size_bucket", ("m", "1")): 1,
        ("size_bucket", ("m", "2")): 2,
        ("size_bucket", ("m", "4")): 3,
        ("size_bucket", ("m", "+Inf")): 4,
        ("size_sum", ("m",)): 14.5,
        ("size_count", ("m",)): 4,
    }


def test_a_histogram_begins_with_every_bucket_at_zero() -> None:
    book = Book()
    MetricsBuffer(book, {"size": (1, 2)}, NEVER).begin("size")
    assert book.lines == [
        ("size_bucket", 0, ("1",)),
        ("size_bucket", 0, ("2",)),
        ("size_bucket", 0, ("+Inf",)),
        ("size_sum", 0, ()),
        ("size_count", 0, ()),
    ]


def test_what_is_added_arrives_by_itself_and_many_additions_are_few_lines() -> None:
    book = Book()
    buffer = MetricsBuffer(book, {}, period_s=0.05)
    for _ in range(1000):
        buffer.add("images", 1)
    deadline = time.monotonic() + 10
    while book.sums() != {("images", ()): 1000} and time.monotonic() < deadline:
        time.sleep(0.01)
    assert book.sums() == {("images", ()): 1000}
    buffer.add("images", 1)
    while book.sums() != {("images", ()): 1001} and time.monotonic() < deadline:
        time.sleep(0.01)
    assert book.sums() == {("images", ()): 1001}
    assert len(book.lines) < 500


def test_nothing_is_lost_or_counted_twice_between_threads() -> None:
    book = Book()
    buffer = MetricsBuffer(book, {"size": (1,)}, period_s=0.001)

    def work() -> None:
        for _ in range(2000):
            buffer.add("images", 1)
            buffer.observe("size", 0.5)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    buffer.flush()
    assert book.sums()["images", ()] == book.sums()["size_count", ()] == 8000
