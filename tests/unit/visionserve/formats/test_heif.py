"""HEIC and AVIF, as phones and browsers write them, and as nobody should."""

import io
import struct
import subprocess
import sys
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from tests.unit.visionserve.test_images import PIXELS
from visionserve.errors import CorruptImage, ImageTooLarge, ServiceError, UnsupportedImage
from visionserve.files import is_image
from visionserve.images import Limits, decode

SHAPE = PIXELS.shape
BIG = np.asarray(Image.fromarray(PIXELS).resize((136, 88)))  # codecs of films work in blocks of 64 pixels


def heic(pixels: np.ndarray = BIG, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(pixels).convert(mode)).save(file, quality=95, chroma=444, **options)
    return file.getvalue()


def avif(pixels: np.ndarray = BIG, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(
        file, "AVIF", **{"quality": 95, "subsampling": "4:4:4", "speed": 10, **options}
    )
    return file.getvalue()


def high_depth(bits: int) -> bytes:
    """A HEIC of 10 or 12 bits a value."""
    file = io.BytesIO()
    wide = (BIG.astype(np.uint16) * 257).tobytes()
    pillow_heif.options.SAVE_HDR_TO_12_BIT = bits == 12
    try:
        image = pillow_heif.from_bytes("RGB;16", BIG.shape[1::-1], wide)
        image.save(file, quality=95, chroma=444)
    finally:
        pillow_heif.options.SAVE_HDR_TO_12_BIT = False
    return file.getvalue()


FILES = {"heic": heic(), "avif": avif(), "heic-10": high_depth(10), "heic-12": high_depth(12)}
each = pytest.mark.parametrize("file", FILES.values(), ids=FILES.keys())


@each
def test_an_image_comes_close_to_what_was_drawn(file: bytes) -> None:
    pixels = decode(file)
    assert pixels.shape == BIG.shape and pixels.flags.c_contiguous and pixels.flags.writeable
    assert np.abs(pixels.astype(int) - BIG).mean() < 4
    np.testing.assert_array_equal(decode(bytearray(file)), pixels)
    np.testing.assert_array_equal(decode(memoryview(file)), pixels)


@each
def test_a_reduced_image_is_the_mean_of_the_whole_one(file: bytes) -> None:
    reduced, whole = decode(file, min_side=20), Image.fromarray(decode(file))
    assert reduced.shape == (22, 34, 3)
    assert np.abs(reduced.astype(int) - np.asarray(whole.reduce(4))).max() <= 1


@pytest.mark.parametrize("encode", [heic, avif])
def test_alpha_is_laid_on_white_and_grey_becomes_rgb(encode: Any) -> None:
    alpha = np.repeat(np.linspace(0, 255, BIG.shape[1]).astype(np.uint8)[None], BIG.shape[0], axis=0)
    opacity = alpha[:, :, None] / 255
    pixels = decode(encode(np.dstack([BIG, alpha]), "RGBA"))
    assert np.abs(pixels - (BIG * opacity + 255 * (1 - opacity))).mean() < 6
    shades = decode(encode(mode="L"))
    assert (shades[:, :, 0] == shades[:, :, 2]).all()


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_an_avif_is_turned_upright_once(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    turns = {3: 2, 6: 3, 8: 1}[orientation]
    assert np.abs(decode(avif(exif=exif)).astype(int) - np.rot90(BIG, turns)).mean() < 4


def test_a_heic_is_turned_by_its_container_and_not_again_by_its_exif() -> None:
    turned = bytearray(heic())
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = decode(heic(exif=exif.tobytes()))
    assert plain.shape in (BIG.shape, np.rot90(BIG).shape)  # the encoder may write the turn into the container
    file = pillow_heif.open_heif(io.BytesIO(heic(exif=exif.tobytes())))
    np.testing.assert_array_equal(plain, np.asarray(file[0]))
    assert decode(bytes(turned)).shape == BIG.shape


def test_the_primary_image_of_several_is_taken() -> None:
    kind: Any = pillow_heif.HeifFile
    images = kind()
    for pixels in (255 - BIG, BIG):
        images.add_from_pillow(Image.fromarray(pixels))
    images.primary_index = 1
    file = io.BytesIO()
    images.save(file, quality=95, chroma=444, primary_index=1)
    assert np.abs(decode(file.getvalue()).astype(int) - BIG).mean() < 4


def test_the_first_frame_of_an_avif_sequence_is_taken() -> None:
    later = Image.new("RGB", BIG.shape[1::-1], "magenta")
    assert np.abs(decode(avif(save_all=True, append_images=[later, later])).astype(int) - BIG).mean() < 4


@each
def test_limits_hold_before_anything_is_decoded(file: bytes) -> None:
    with pytest.raises(ImageTooLarge, match="136 x 88 pixels"):
        decode(file, limits=Limits(max_pixels=1000))
    with pytest.raises(ImageTooLarge, match="MB to decode"):
        decode(file, limits=Limits(max_memory=1000), min_side=50)


@each
def test_a_truncated_file_is_corrupt(file: bytes) -> None:
    for share in (0.3, 0.6, 0.9):
        with pytest.raises(CorruptImage):
            decode(file[: int(share * len(file))])


def test_a_heic_larger_than_its_container_says_is_refused() -> None:
    file = bytearray(heic(np.zeros((512, 512, 3), np.uint8)))
    at = file.index(b"ispe")
    struct.pack_into(">II", file, at + 8, 64, 64)
    with pytest.raises(ServiceError):
        decode(bytes(file))


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\xff\x0a rest", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x4f\xff\x51", "JPEG 2000"),
        (b"<?xml version='1.0'?>\n<svg>", "SVG"),
        (b"%PDF-1.7", "PDF"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "video"),
        (b"\0\0\0\x18ftypcrx \0\0\0\0", "camera raw"),
    ],
)
def test_formats_that_are_not_taken_are_named(start: bytes, name: str) -> None:
    with pytest.raises(UnsupportedImage, match=f"Unsupported image format {name}: send JPEG, PNG, WebP, HEIC, AVIF"):
        decode(start + bytes(64))


@pytest.mark.parametrize("film", [b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", b"\xff\xd8\xff\xe0 no image"])
def test_what_follows_the_end_of_a_jpeg_is_left_alone(film: bytes) -> None:
    """Motion photos have a film there, Ultra HDR a second JPEG with the gain map."""
    file = io.BytesIO()
    Image.fromarray(BIG).save(file, "JPEG")
    np.testing.assert_array_equal(decode(file.getvalue() + film * 1000), decode(file.getvalue()))


def test_the_decoders_are_imported_with_the_first_such_file() -> None:
    code = (
        "import io, sys; from PIL import Image; from visionserve.images import decode; file = io.BytesIO();"
        "Image.new('RGB', (9, 9)).save(file, 'JPEG'); decode(file.getvalue());"
        "assert not {'pillow_heif', '_pillow_heif', 'PIL.AvifImagePlugin'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_folders_are_searched_for_them() -> None:
    assert is_image("a.HEIC") and is_image("b.avif") and is_image("c.heif")


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_gives_an_image_or_a_service_error(name: str) -> None:
    rng = np.random.default_rng(list(name.encode()))
    outcomes = {"image": 0, "error": 0}
    for _ in range(150):
        broken = bytearray(FILES[name])
        for position in rng.integers(0, len(broken), rng.integers(1, 5)):
            broken[position] = rng.integers(0, 256)
        try:
            decode(bytes(broken), limits=Limits(max_pixels=1_000_000), min_side=20)
        except ServiceError:
            outcomes["error"] += 1
        else:
            outcomes["image"] += 1
    assert min(outcomes.values()) > 0, "damage that always or never matters tests nothing"
