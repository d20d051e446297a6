"""What a run has logged to TensorBoard."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]


def curves(folder: Path) -> dict[str, dict[int, float]]:
    """Return name -> step -> value of the curves of the run in ``folder``."""
    found: dict[str, dict[int, float]] = {}
    for events in sorted(folder.glob("version_*")):
        reader = EventAccumulator(str(events)).Reload()
        for name in reader.Tags()["scalars"]:
            found.setdefault(name, {}).update({point.step: point.value for point in reader.Scalars(name)})
    return found
