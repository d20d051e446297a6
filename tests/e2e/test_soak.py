from pathlib import Path

from loadtests import soak
from tests.e2e.conftest import E2E

pytestmark = E2E


def test_a_service_is_loaded_weighed_and_stays_as_it_is(model_store: Path) -> None:
    """`make soak` does the same over 100,000 requests."""
    said: list[str] = []
    found = soak.run(model_store / "flowers.mar", None, 600, 0.5, said.append)
    assert found[-1].requests >= 600
    assert len(found) == len(said) >= 2
    assert not any(entry.faults for entry in found)
    assert all(300 < entry.memory_mb < 3000 and entry.p99_ms > 0 for entry in found)
