import io
import itertools
import json
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.conftest import TinyBundle
from tests.unit.visionserve.formats import profiles
from visionserve import batch, nvjpeg, transforms
from visionserve.classifier import Classifier
from visionserve.errors import BundleError
from visionserve.images import Limits
from visionserve.nvjpeg import JpegDecoder
from visionserve.request_parsing import RawRequest
from visionserve.transforms import Preprocessing

CPU = torch.device("cpu")
PREPROCESSING = Preprocessing(64, 0.8)


def photo(width: int, height: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """A smooth picture that looks different in each of its corners."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, **{"format": "JPEG", "quality": 92, **options})  # type: ignore[arg-type]
    return file.getvalue()


def with_orientation(turn: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = turn
    return encoded(photo(300, 200), exif=exif)


def decoder(limits: Limits | None = None) -> JpegDecoder:
    return JpegDecoder(PREPROCESSING, limits or Limits(), CPU)


PLAIN = {
    "baseline": encoded(photo(300, 200)),
    "portrait": encoded(photo(171, 303)),
    "progressive": encoded(photo(300, 200), progressive=True),
    "grey": encoded(photo(300, 200, mode="L")),
    "4:4:4": encoded(photo(300, 200), subsampling=0),
    "smaller than the network's view": encoded(photo(40, 31)),
    **{f"orientation {turn}": with_orientation(turn) for turn in range(1, 9)},
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_jpeg_becomes_what_the_reference_makes_of_it(name: str) -> None:
    (pixels,) = decoder()([PLAIN[name]])
    assert pixels is not None
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    reference = transforms.load(PLAIN[name], PREPROCESSING).astype(int)
    # The GPU resizes in float, the CPU in fixed point: they round a level apart.
    assert np.abs(pixels.astype(int) - reference).max() <= 1


def png() -> bytes:
    return encoded(photo(30, 20), format="PNG")


OTHERS = {
    "no image": b"hello",
    "nothing": b"",
    "a PNG": png(),
    "CMYK": encoded(photo(30, 20, mode="CMYK")),
    "cut short": PLAIN["baseline"][:-200],
    "without its end": PLAIN["baseline"][:-2],
    "a film behind the end": PLAIN["baseline"] + b"ftypmp42" * 10,
}


def test_whatever_is_no_plain_jpeg_is_left_to_the_cpu_and_costs_the_others_nothing() -> None:
    files = list(itertools.chain.from_iterable((PLAIN["baseline"], other) for other in OTHERS.values()))
    results = decoder()(files)
    assert all(pixels is not None for pixels in results[::2])
    assert [name for name, pixels in zip(OTHERS, results[1::2], strict=True) if pixels is not None] == []


def test_display_p3_is_left_to_the_cpu_which_converts_it() -> None:
    assert decoder()([encoded(photo(30, 20), icc_profile=profiles.DISPLAY_P3)]) == [None]


def test_what_is_over_a_limit_is_left_to_the_cpu_which_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decoder(Limits(max_bytes=1000))([PLAIN["baseline"]]) == [None]
    assert decoder(Limits(max_pixels=1000))([PLAIN["baseline"]]) == [None]
    monkeypatch.setattr(nvjpeg, "MAX_PIXELS", 59_999)
    assert decoder()([PLAIN["baseline"]]) == [None]


def test_a_file_that_only_the_decoder_refuses_costs_its_batch_mates_nothing() -> None:
    table = PLAIN["baseline"].index(b"\xff\xc4") + 5  # a Huffman table's counts, which no header check reads
    broken = PLAIN["baseline"][:table] + b"\xff" * 16 + PLAIN["baseline"][table + 16 :]
    results = decoder()([PLAIN["baseline"], broken, PLAIN["progressive"]])
    assert [pixels is None for pixels in results] == [False, True, False]


def test_a_batch_of_many_large_images_is_decoded_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvjpeg, "MAX_PIXELS_AT_ONCE", 150_000)  # two and a half of 300 x 200
    at_once: list[int] = []

    class Counting(JpegDecoder):
        def _decode(self, files: list[bytes | bytearray]) -> list[torch.Tensor]:
            at_once.append(len(files))
            return super()._decode(files)

    files = [PLAIN["baseline"], PLAIN["portrait"], PLAIN["progressive"], b"no image", PLAIN["grey"]]
    results = Counting(PREPROCESSING, Limits(), CPU)(files)
    assert at_once == [2, 2]
    expected = [pixels for file in files for pixels in decoder()([file])]
    assert [pixels is None for pixels in results] == [False, False, False, True, False]
    for one, other in zip(results, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_batch_of_requests_is_answered_as_it_is_without(tiny: TinyBundle) -> None:
    classifier = Classifier.load(tiny.directory)
    requests = [
        RawRequest("a", {"body": PLAIN["baseline"]}, {}, False),
        RawRequest("b", {"body": b"no image"}, {}, False),
        RawRequest("c", {"body": png()}, {}, False),
        RawRequest("d", {"body": PLAIN["orientation 6"]}, {}, False),
    ]
    expected = batch.answer(classifier, requests, max_images=8)
    seen: list[int] = []

    class Counting(JpegDecoder):
        def __call__(self, files: Sequence[bytes | bytearray]) -> list[np.ndarray | None]:
            seen.append(len(files))
            return super().__call__(files)

    classifier.jpeg_decoder = Counting(classifier.preprocessing, classifier.limits, CPU)
    outcome = batch.answer(classifier, requests, max_images=8)
    assert seen == [4]  # all at once
    assert [reply.status for reply in outcome.replies] == [reply.status for reply in expected.replies]
    for reply, other in zip(outcome.replies, expected.replies, strict=True):
        if reply.status == 200:
            one, two = (json.loads(r.content.body)["predictions"][0] for r in (reply, other))
            assert one["label"] == two["label"]
            assert one["probability"] == pytest.approx(two["probability"], abs=0.01)
    assert outcome.replies[2].content == expected.replies[2].content


def test_where_nvjpeg_is_missing_the_worker_says_so_at_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    # This torchvision, or this machine, has none: the real operator refuses.
    if torch.cuda.is_available():
        pytest.skip("needs a machine without CUDA: run it there with `make test`")
    gpu = JpegDecoder(PREPROCESSING, Limits(), torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    with pytest.raises(BundleError, match=r"nvJPEG does not work here .*set handler\.decoder to cpu"):
        gpu.check(PLAIN["baseline"])


def test_an_archive_for_the_cpu_and_an_unknown_decoder_are_refused(tiny: TinyBundle) -> None:
    with pytest.raises(BundleError, match="nvJPEG decodes on a GPU"):
        Classifier.load(tiny.directory, decoder="nvjpeg")
    with pytest.raises(BundleError, match="decoder must be one of cpu, nvjpeg"):
        Classifier.load(tiny.directory, decoder="gpu")  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA device: run on one with `make test ARGS='-m gpu'`"
)
def test_nvjpeg_itself_agrees_with_the_reference() -> None:
    gpu = JpegDecoder(PREPROCESSING, Limits(), torch.device("cuda", 0))
    gpu.check(PLAIN["baseline"])
    for name, pixels in zip(PLAIN, gpu(list(PLAIN.values())), strict=True):
        assert pixels is not None, name
        reference = transforms.load(PLAIN[name], PREPROCESSING).astype(int)
        assert np.abs(pixels.astype(int) - reference).mean() < 2, name
