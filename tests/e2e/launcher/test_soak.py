from pathlib import Path

from loadtests import soak
from tests.e2e.conftest import E2E

pytestmark = E2E


def test_a_service_is_loaded_weighed_and_stays_as_it_is(model_store: Path) -> None:
    """`make soak` does the same over 100,000 requests."""
    lines: list[str] = []
    samples = soak.measure(model_store / "flowers.mar", None, 600, 0.5, lines.append)
    assert samples[-1].requests >= 600
    assert len(samples) == len(lines) >= 2
    assert not any(sample.faults for sample in samples)
    assert all(300 < sample.memory_mb < 3000 and sample.p99_ms > 0 for sample in samples)
