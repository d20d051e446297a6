"""Tests of the handler leave TorchServe as it was."""

import logging
from collections.abc import Iterator

import pytest
from ts.metrics.caching_metric import CachingMetric
from ts.protocol import otf_message_handler


@pytest.fixture(autouse=True)
def _torchserve_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A handler changes the process that it works in, which here is that of the tests."""
    for name in ("_retrieve_buffer", "_retrieve_request", "_retrieve_inference_msg"):
        monkeypatch.setattr(otf_message_handler, name, getattr(otf_message_handler, name))
    loggers = [logging.getLogger(), logging.getLogger(CachingMetric.__module__)]
    levels = [entry.level for entry in loggers]
    yield
    for entry, level in zip(loggers, levels, strict=True):
        entry.setLevel(level)
