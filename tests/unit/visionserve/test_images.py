import io
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from visionserve.errors import CorruptImage, EmptyBody, ImageTooLarge, ServiceError, UnsupportedImage
from visionserve.formats import torchvision_decoders
from visionserve.images import Limits, decode

WIDTH, HEIGHT = 17, 11
ROWS, COLUMNS = np.mgrid[0:HEIGHT, 0:WIDTH]
# A ramp to the right in red, downwards in green: a swapped axis, a mirror or a swapped channel shows.
PIXELS = np.stack([15 * COLUMNS, 25 * ROWS, np.full((HEIGHT, WIDTH), 60)], axis=2).astype(np.uint8)


def encoded(image_format: str, pixels: np.ndarray = PIXELS, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, image_format, **options)
    return file.getvalue()


def photo(width: int, height: int, **options: Any) -> bytes:
    small = np.random.default_rng(0).integers(0, 256, (height // 20 + 2, width // 20 + 2, 3), dtype=np.uint8)
    return encoded("JPEG", np.asarray(Image.fromarray(small).resize((width, height))), **options)


LOSSLESS = {
    "png": encoded("PNG"),
    "webp": encoded("WEBP", lossless=True),
    "bmp": encoded("BMP"),
    "tiff": encoded("TIFF"),
    "tiff-lzw": encoded("TIFF", compression="tiff_lzw"),
    "tiff-deflate": encoded("TIFF", compression="tiff_adobe_deflate"),
    "gif": encoded("GIF"),
}
JPEGS = {
    "baseline": encoded("JPEG", quality=95, subsampling=0),
    "subsampled": encoded("JPEG", quality=95),
    "progressive": encoded("JPEG", quality=95, subsampling=0, progressive=True),
    "restarts": encoded("JPEG", quality=95, subsampling=0, restart_marker_blocks=1),
    "cmyk": encoded("JPEG", mode="CMYK", quality=95, subsampling=0),
    "cmyk-progressive": encoded("JPEG", mode="CMYK", quality=95, subsampling=0, progressive=True),
    "rgb-components": encoded("JPEG", quality=95, keep_rgb=True),
}
FILES = LOSSLESS | JPEGS


def each(files: dict[str, bytes]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("file", files.values(), ids=files.keys())


@each(LOSSLESS)
def test_lossless_formats_keep_every_pixel_in_its_place(file: bytes) -> None:
    np.testing.assert_array_equal(decode(file), PIXELS)


@each(JPEGS)
def test_jpegs_of_every_kind_come_close_to_what_was_drawn(file: bytes) -> None:
    error = np.abs(decode(file).astype(int) - PIXELS)
    assert error.mean() < 8


def test_a_grey_jpeg_becomes_rgb() -> None:
    pixels = decode(encoded("JPEG", mode="L", quality=100))
    expected = np.asarray(Image.fromarray(PIXELS).convert("L"))
    assert np.abs(pixels.astype(int) - expected[:, :, None]).max() <= 2


@each(FILES)
def test_the_result_is_a_writable_contiguous_rgb_array(file: bytes) -> None:
    pixels = decode(file)
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable


@each(FILES)
def test_bytes_bytearrays_and_memoryviews_give_the_same_pixels_and_stay_untouched(file: bytes) -> None:
    array = bytearray(file)
    pixels = decode(array)
    assert array == file
    array.clear()  # a buffer that is still exported could not be resized
    np.testing.assert_array_equal(pixels, decode(file))
    np.testing.assert_array_equal(pixels, decode(memoryview(b"-" + file)[1:]))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_exif_orientation_is_undone(image_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = encoded(image_format, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(encoded("PNG", exif=exif)))))
    assert decode(file).shape == ((HEIGHT, WIDTH, 3) if orientation < 5 else (WIDTH, HEIGHT, 3))
    assert np.abs(decode(file).astype(int) - expected).mean() < 12


@pytest.mark.parametrize("orientation", [6, 3])
def test_a_jpeg_decoded_at_a_reduced_scale_is_turned_too(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = photo(400, 240, exif=exif)
    reduced, full = decode(file, min_side=50), decode(file)
    assert reduced.shape == ((100, 60, 3) if orientation == 6 else (60, 100, 3))
    shrunk = np.asarray(Image.fromarray(full).resize(reduced.shape[1::-1], Image.Resampling.BOX))
    assert np.abs(reduced.astype(int) - shrunk).mean() < 6


DAMAGED_EXIF = {
    "empty": b"",
    "no-directory": b"MM\0*\xff\xff\xff\xff",
    "endless": b"II*\0\x08\0\0\0\xff\xff" + b"\x12" * 40,
    "orientation-as-text": b"MM\0*\0\0\0\x08\0\x01" + b"\x01\x12\0\x02\0\0\0\x03up\0\0" + bytes(4),
}


@pytest.mark.parametrize("exif", DAMAGED_EXIF.values(), ids=DAMAGED_EXIF.keys())
def test_a_damaged_exif_block_does_not_refuse_the_photograph(exif: bytes) -> None:
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif
    file = JPEGS["baseline"]
    np.testing.assert_array_equal(decode(file[:2] + segment + file[2:]), decode(file))


@pytest.mark.parametrize(
    ("image_format", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})]
)
def test_an_animation_gives_its_first_frame(image_format: str, options: dict[str, Any]) -> None:
    later = Image.new("RGB", (WIDTH, HEIGHT), "magenta")
    file = encoded(image_format, save_all=True, append_images=[later, later], **options)
    np.testing.assert_array_equal(decode(file), PIXELS)


def test_a_file_of_several_jpegs_gives_the_first() -> None:
    file = encoded("MPO", quality=95, save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT), "magenta")])
    np.testing.assert_array_equal(decode(file), decode(JPEGS["subsampled"]))


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_means_nothing_turns_nothing(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode(encoded("PNG", exif=exif)), PIXELS)


def test_an_empty_body_is_told_apart() -> None:
    for nothing in (b"", bytearray(), memoryview(b"")):
        with pytest.raises(EmptyBody):
            decode(nothing)


@pytest.mark.parametrize(
    "file",
    [b"\0", b"hello", b"%PDF-1.7", b"RIFF\0\0\0\0WAVE", b"\xff\xd8", encoded("PPM"), encoded("ICO"), encoded("TGA")],
)
def test_what_is_no_image_of_an_accepted_format_is_unsupported(file: bytes) -> None:
    with pytest.raises(UnsupportedImage):
        decode(file)


@each(FILES)
def test_a_file_cut_before_its_last_pixel_is_refused_as_corrupt(file: bytes) -> None:
    for share in (0.5, 0.75):
        with pytest.raises(CorruptImage):
            decode(file[: int(share * len(file))])


@each(JPEGS)
def test_a_jpeg_cut_at_any_byte_is_refused(file: bytes) -> None:
    for size in range(3, len(file)):
        with pytest.raises(CorruptImage):
            decode(file[:size])


def test_a_large_truncated_jpeg_is_refused_at_a_reduced_scale_too() -> None:
    file = photo(640, 480)
    with pytest.raises(CorruptImage):
        decode(file[: len(file) - 100], min_side=64)


@each(FILES)
def test_one_pixel_too_many_is_refused_from_the_header_alone(file: bytes) -> None:
    assert decode(file, limits=Limits(max_pixels=WIDTH * HEIGHT)).shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(ImageTooLarge, match="17 x 11 pixels; at most 186"):
        decode(file, limits=Limits(max_pixels=WIDTH * HEIGHT - 1))


def test_a_jpeg_without_a_height_is_corrupt() -> None:
    frame = JPEGS["baseline"].index(b"\xff\xc0")
    with pytest.raises(CorruptImage):
        decode(JPEGS["baseline"][: frame + 5] + b"\0\0" + JPEGS["baseline"][frame + 7 :])


def test_one_byte_too_many_is_refused() -> None:
    file = FILES["png"]
    assert decode(file, limits=Limits(max_bytes=len(file))).any()
    with pytest.raises(ImageTooLarge, match="bytes"):
        decode(file, limits=Limits(max_bytes=len(file) - 1))


@pytest.mark.parametrize(
    ("min_side", "shape"),
    [(None, (480, 640, 3)), (241, (480, 640, 3)), (240, (240, 320, 3)), (61, (120, 160, 3)), (1, (60, 80, 3))],
)
def test_a_reduced_jpeg_keeps_its_shorter_side_at_min_side(min_side: int | None, shape: tuple[int, ...]) -> None:
    assert decode(photo(640, 480), min_side=min_side).shape == shape


def test_min_side_enlarges_nothing() -> None:
    assert decode(JPEGS["baseline"], min_side=1000).shape == (HEIGHT, WIDTH, 3)


def test_a_photograph_with_a_long_comment_is_welcome() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "x" * 10_000, zip=True)
    np.testing.assert_array_equal(decode(encoded("PNG", pnginfo=text)), PIXELS)


def test_an_image_above_pillows_own_warning_limit_is_decided_by_our_limits_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # 17 x 11 is above it, below twice it
    np.testing.assert_array_equal(decode(FILES["png"]), PIXELS)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 90)
    with pytest.raises(ImageTooLarge):
        decode(FILES["png"])


def test_only_pillows_warnings_are_silenced() -> None:
    decode(FILES["png"])
    with pytest.raises(UserWarning, match="not ours"):
        warnings.warn("not ours", UserWarning, stacklevel=1)


@each(FILES)
def test_messages_tell_the_client_what_to_do_and_nothing_about_the_inside(file: bytes) -> None:
    refused = [
        (file[: len(file) // 2], Limits()),
        (file, Limits(max_pixels=1)),
        (file, Limits(max_bytes=1)),
        (b"x", Limits()),
    ]
    for data, limits in refused:
        with pytest.raises(ServiceError) as caught:
            decode(data, limits=limits)
        message = caught.value.message
        assert any(verb in message for verb in ("send", "Send", "scale"))
        assert not any(word in message for word in ("Error", "PIL", "torch", "/", "0x", "line "))


def test_a_jpeg_whose_decoder_finds_another_size_than_its_header_reader_is_an_error() -> None:
    with pytest.raises(ValueError, match="the header says"):
        torchvision_decoders.decode_jpeg(JPEGS["baseline"], (HEIGHT, WIDTH))


def test_threads_do_not_disturb_each_other() -> None:
    expected = [decode(file) for file in FILES.values()]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            for pixels, alone in zip(pool.map(decode, FILES.values()), expected, strict=True):
                np.testing.assert_array_equal(pixels, alone)
