"""What a batch costs, counted instead of timed: a machine's load changes seconds, but no count.

Each limit is a little above today's count. A change that exceeds one has to be worth it, and raises it here.
"""

import io
import sys
import tracemalloc
from collections import Counter
from types import FrameType

import numpy as np
import pytest
from PIL import Image

from tests.unit.conftest import TinyBundle
from tests.unit.visionserve.test_batch import RecordingEngine
from visionserve import batch
from visionserve.classifier import Classifier
from visionserve.request_parsing import RawRequest

HEIGHT, WIDTH, BATCH = 120, 160, 4
HEADERS = {"host": "example", "content-type": "image/jpeg", "accept": "*/*", "user-agent": "curl"}
DECODED = HEIGHT * WIDTH * 3


@pytest.fixture(scope="module")
def classifier(tiny: TinyBundle) -> Classifier:
    loaded = Classifier.load(tiny.directory)
    loaded.warm_up(BATCH)
    batch.answer(loaded, requests(), BATCH)  # first uses compile patterns and fill caches
    return loaded


def photograph() -> bytes:
    coarse = np.random.default_rng(7).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


def requests() -> list[RawRequest]:
    return [RawRequest(str(place), {"body": bytearray(photograph())}, HEADERS, False) for place in range(BATCH)]


def test_a_photograph_costs_few_calls(classifier: Classifier) -> None:
    calls: Counter[str] = Counter()

    def count(frame: FrameType, event: str, function: object) -> None:
        if event in ("call", "c_call"):
            calls[frame.f_code.co_name if event == "call" else getattr(function, "__name__", "?")] += 1

    received = requests()
    sys.setprofile(count)
    try:
        batch.answer(classifier, received, BATCH)
    finally:
        sys.setprofile(None)
    each = calls.total() / BATCH
    assert 200 < each < 520, f"{each:.0f} calls a photograph: {calls.most_common(15)}"


def test_a_batch_is_one_run_and_more_than_fit_are_shared_out_evenly(classifier: Classifier) -> None:
    engine = RecordingEngine(classifier)
    usual, classifier.engine = classifier.engine, engine
    try:
        batch.answer(classifier, requests(), BATCH)
        batch.answer(classifier, requests() + requests() + requests()[:1], BATCH)
    finally:
        classifier.engine = usual
    assert engine.sizes == [4, 4, 4, 1]


def test_no_copy_of_a_decoded_photograph_stays_or_is_made_in_numpy(classifier: Classifier) -> None:
    received = requests()
    tracemalloc.start()
    try:
        outcome = batch.answer(classifier, received, BATCH)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(reply.status == 200 for reply in outcome.replies)
    # The square that is cut out is the one copy, of one photograph at a time; the decoder's own memory is torch's.
    assert peak < 1.5 * DECODED, f"{peak:,} bytes at once; a decoded photograph has {DECODED:,}"
    assert kept < 0.5 * DECODED, f"{kept:,} bytes stay"


def test_a_plain_jpeg_is_never_decoded_by_pillow(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    received = requests()
    loads: list[object] = []
    load = Image.Image.load

    def counted(image: Image.Image) -> object:
        loads.append(image)
        return load(image)

    monkeypatch.setattr(Image.Image, "load", counted)
    batch.answer(classifier, received, BATCH)
    assert loads == []
