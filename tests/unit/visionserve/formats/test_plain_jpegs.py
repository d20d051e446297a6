"""Plain JPEGs are decoded without Pillow's reading of the header: with the same outcome for every file."""

import io
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from visionserve.errors import ServiceError
from visionserve.formats import headers
from visionserve.images import decode

_READ = headers.read_jpeg


def photo(width: int, height: int, mode: str = "RGB") -> Image.Image:
    small = np.random.default_rng(width).integers(0, 256, (5, 7, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, **{"format": "JPEG", **options})  # type: ignore[arg-type]
    return file.getvalue()


EXIF = Image.Exif()
EXIF[0x0112] = 6
PLAIN = {
    "baseline": encoded(photo(70, 50)),
    "progressive": encoded(photo(70, 50), progressive=True),
    "grey": encoded(photo(70, 50, "L")),
    "4:4:4": encoded(photo(33, 17), subsampling=0),
    "a comment": encoded(photo(70, 50), comment=b"a garden"),
}
OTHERS = {
    "an orientation": encoded(photo(70, 50), exif=EXIF),
    "a profile": encoded(photo(70, 50), icc_profile=b"some profile"),
    "CMYK": encoded(photo(70, 50, "CMYK")),
}


@pytest.mark.parametrize(("kinds", "plain"), [(PLAIN, True), (OTHERS, False)], ids=["plain", "others"])
def test_a_jpeg_is_plain_if_nothing_but_its_size_has_to_be_known(kinds: dict[str, bytes], plain: bool) -> None:
    assert {name: headers.read_jpeg(file).plain for name, file in kinds.items()} == dict.fromkeys(kinds, plain)
    assert headers.read_jpeg(kinds[next(iter(kinds))]).size == (70, 50)


def mutations(file: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Change a few bytes, most of them where the headers are; cut some files short."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        mutant = bytearray(file)
        for _ in range(rng.integers(1, 4)):
            mutant[int(rng.integers(2, 640 if rng.random() < 0.8 else len(file)))] = int(rng.integers(256))
        yield bytes(mutant[: int(rng.integers(200, len(file)))] if rng.random() < 0.1 else mutant)


def outcome(file: bytes, min_side: int | None) -> bytes | str:
    try:
        pixels = decode(file, min_side=min_side)
        return np.array(pixels.shape).tobytes() + pixels.tobytes()
    except ServiceError as error:
        return error.code


@pytest.mark.parametrize("name", PLAIN)
def test_the_outcome_is_that_with_pillows_header_whatever_the_bytes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    differ = []
    for number, mutant in enumerate(mutations(PLAIN[name], 400, seed=len(name))):
        min_side = (None, 8, 40)[number % 3]
        fast = outcome(mutant, min_side)
        with monkeypatch.context() as patch:
            patch.setattr(headers, "read_jpeg", lambda file: replace(_READ(file), plain=False))
            slow = outcome(mutant, min_side)
        if fast != slow:
            differ.append(
                (number, fast if isinstance(fast, str) else "pixels", slow if isinstance(slow, str) else "pixels")
            )
    assert differ == []
