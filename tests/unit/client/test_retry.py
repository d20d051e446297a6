from datetime import UTC, datetime

import pytest

from visionserve.client.retry import Attempts, Retries, seconds


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def attempts(retries: Retries, timeout_s: float = 60, draw: float = 1.0) -> tuple[Attempts, Clock]:
    clock = Clock()
    return Attempts(retries, timeout_s, clock, lambda: draw), clock


def test_pauses_double_up_to_a_bound_and_then_end() -> None:
    patient, _ = attempts(Retries(count=4, first_s=1, largest_s=3))
    assert [patient.pause_s() for _ in range(5)] == [1, 2, 3, 3, None]


def test_pauses_are_drawn_below_their_bound() -> None:
    patient, _ = attempts(Retries(first_s=1), draw=0.25)
    assert [patient.pause_s(), patient.pause_s()] == [0.25, 0.5]


def test_a_retry_after_is_the_least_that_is_waited() -> None:
    patient, _ = attempts(Retries(first_s=1), draw=0.0)
    assert patient.pause_s("7") == 7
    patient, _ = attempts(Retries(first_s=1), draw=1.0)
    assert patient.pause_s("4") == 5


def test_nothing_is_tried_after_the_calls_time() -> None:
    patient, clock = attempts(Retries(count=100, first_s=1), timeout_s=10)
    assert patient.pause_s("10") is None
    assert patient.pause_s("6") == 7.5
    clock.now += 9.5
    assert patient.remaining_s == pytest.approx(0.5)
    assert patient.pause_s() is None


def test_time_that_is_over_is_not_for_ever() -> None:
    patient, clock = attempts(Retries(), timeout_s=1)
    clock.now += 5
    assert patient.remaining_s == 0.001


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (None, None),
        ("3", 3.0),
        (" 3 ", 3.0),
        ("soon", None),
        ("-3", None),
        ("", None),
        ("²", None),
        ("Sat, 21 Nov 2026 09:00:30 GMT", 30.0),
        ("Sat, 21 Nov 2026 09:00:30 -0000", 30.0),
        ("Sat, 21 Nov 2026 08:00:00 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str | None, wanted: float | None) -> None:
    assert seconds(text, datetime(2026, 11, 21, 9, 0, 0, tzinfo=UTC)) == wanted
