"""mosec: its Rust front end batches, its workers decode and run the model. `python -m ... --address --port`."""

from collections.abc import Sequence
from typing import Any

from mosec import Server, Worker

from loadtests.benchmark.peers import model

# Milliseconds for a full batch: practically none, as in visionserve.
_WAIT_MS = 1


class ImageWorker(Worker):  # type: ignore[misc]
    """Decodes a batch and runs the model on it."""

    def __init__(self) -> None:
        super().__init__()
        self._model = model.Model()

    def deserialize(self, data: bytes) -> bytes:
        """Take a body as it is."""
        return data

    def serialize(self, data: Any) -> bytes:
        """Send an answer as it is."""
        return bytes(data)

    def forward(self, data: Sequence[bytes]) -> list[bytes]:
        """Answer a batch."""
        return self._model.answer(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(ImageWorker, num=model.workers(), max_batch_size=model.batch(), max_wait_time=_WAIT_MS)
    server.run()
