"""Colour profiles: whatever space a file states, the same colours as in sRGB come out."""

import io
import struct
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image, PngImagePlugin

from tests.unit.visionserve.formats import profiles
from tests.unit.visionserve.formats.costly_images import png_chunk
from visionserve.errors import ImageTooLarge, ServiceError
from visionserve.formats import embedded_profiles, limits, rgb_spaces, srgb
from visionserve.images import Limits, decode

pillow_heif.register_heif_opener()
ROWS, COLUMNS = np.mgrid[0:88, 0:136]
PIXELS = np.stack([COLUMNS * 255 // 135, ROWS * 255 // 87, (COLUMNS + ROWS) % 200], axis=2).astype(np.uint8)
LOSSLESS: dict[str, dict[str, Any]] = {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {"compression": "tiff_lzw"}}
LOSSY: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "HEIF": {"quality": 100, "chroma": 444},
    "AVIF": {"quality": 100, "subsampling": "4:4:4", "speed": 10},
}


def encoded(image_format: str, pixels: np.ndarray = PIXELS, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    options = (LOSSLESS | LOSSY).get(image_format, {}) | options
    Image.fromarray(pixels).convert(mode).save(file, image_format, **options)
    return file.getvalue()


def distance(pixels: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(pixels - expected).mean())


@pytest.mark.parametrize("image_format", LOSSLESS)
@pytest.mark.parametrize(
    ("profile", "as_srgb"),
    [(profiles.DISPLAY_P3, profiles.p3_as_srgb), (profiles.ADOBE_RGB, profiles.adobe_as_srgb)],
    ids=["display-p3", "adobe-rgb"],
)
def test_colours_become_those_that_the_standards_arithmetic_gives(
    image_format: str, profile: bytes, as_srgb: Any
) -> None:
    pixels = decode(encoded(image_format, icc_profile=profile))
    assert np.abs(pixels - as_srgb(PIXELS)).max() <= 1
    assert pixels.flags.c_contiguous and pixels.flags.writeable


@pytest.mark.parametrize("image_format", LOSSY)
def test_the_profile_of_every_lossy_format_is_found(image_format: str) -> None:
    pixels = decode(encoded(image_format, icc_profile=profiles.DISPLAY_P3))
    assert distance(pixels, profiles.p3_as_srgb(PIXELS)) < 1.5 < distance(pixels, PIXELS)


def test_an_image_written_in_another_space_comes_back_in_its_own_colours() -> None:
    pastel = (PIXELS // 2 + 60).astype(np.uint8)
    file = encoded("PNG", profiles.srgb_as_p3(pastel), icc_profile=profiles.DISPLAY_P3)
    assert np.abs(decode(file).astype(int) - pastel).max() <= 2


def test_pro_photo_is_converted_within_its_gamut() -> None:
    grey = np.full((8, 8, 3), 128, np.uint8)
    expected = profiles.gamma_as_srgb(grey, 1.8)
    assert np.abs(decode(encoded("PNG", grey, icc_profile=profiles.PROPHOTO)) - expected).max() <= 1
    green = decode(encoded("PNG", np.full((8, 8, 3), (60, 160, 60), np.uint8), icc_profile=profiles.PROPHOTO))
    assert green[0, 0, 0] == 0 and green[0, 0, 1] >= 185, "a green more saturated than sRGB has"


@pytest.mark.parametrize("mode", ["L", "LA"])
@pytest.mark.parametrize(("profile", "gamma"), [(profiles.GREY_1_8, 1.8), (profiles.GREY_2_2, 2.2)])
def test_greys_follow_the_curve_of_their_profile(mode: str, profile: bytes, gamma: float) -> None:
    greys = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    pixels = decode(encoded("PNG", greys, mode, icc_profile=profile))
    assert np.abs(pixels - profiles.gamma_as_srgb(greys, gamma)).max() <= 2
    assert (pixels == pixels[:, :, :1]).all()


def test_sixteen_bit_greys_follow_theirs() -> None:
    file = io.BytesIO()
    values = np.linspace(0, 65535, 256).astype(np.uint16)[None]
    Image.fromarray(values).save(file, "TIFF", icc_profile=profiles.GREY_1_8)
    expected = profiles.gamma_as_srgb(values / 257, 1.8)
    assert np.abs(decode(file.getvalue())[:, :, 0] - expected).max() <= 2


def test_the_profile_of_colour_serves_a_grey_image_too() -> None:
    greys = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    linear = rgb_spaces.from_code_points(1, 8)
    assert linear is not None
    expected = profiles.gamma_as_srgb(greys, 1.0)
    assert np.abs(decode(encoded("PNG", greys, "L", icc_profile=linear)) - expected).max() <= 2


@pytest.mark.parametrize("image_format", ["JPEG", "TIFF"])
def test_inks_are_converted_by_the_profile_of_the_press(image_format: str) -> None:
    inks = np.zeros((88, 136, 4), np.uint8)
    inks[:44, :, 0] = 255
    inks[44:, 68:, 3] = 255
    file = io.BytesIO()
    Image.fromarray(inks, "CMYK").save(
        file, image_format, icc_profile=profiles.press(17), **LOSSY.get(image_format, {})
    )
    for min_side in (None, 20):
        pixels = decode(file.getvalue(), min_side=min_side)
        cyan, white, black = pixels[5, 5], pixels[-5, 5], pixels[-5, -5]
        assert np.abs(cyan.astype(int) - (0, 190, 252)).max() <= 6, "this press's cyan, not (0, 255, 255)"
        assert white.min() >= 253 and black.max() <= 2


def test_a_profile_longer_than_a_segment_of_a_jpeg_is_joined() -> None:
    profile = profiles.press(17)
    file = encoded("JPEG", mode="CMYK", icc_profile=profile)
    assert len(profile) > 3 << 16 and file.count(b"ICC_PROFILE\0") == 4
    assert distance(decode(file), decode(encoded("JPEG", mode="CMYK"))) > 5
    incomplete = file.replace(b"ICC_PROFILE\0\2", b"ICC_PR0FILE\0\2")
    np.testing.assert_array_equal(decode(incomplete), decode(encoded("JPEG", mode="CMYK")))


def test_code_points_of_a_heic_name_its_space() -> None:
    pixels = decode(encoded("HEIF", color_primaries=12, transfer_characteristic=13))
    assert distance(pixels, profiles.p3_as_srgb(PIXELS)) < 1.5 < distance(pixels, PIXELS)


def avif_of(primaries: int, transfer: int) -> bytes:
    file = bytearray(encoded("AVIF"))
    struct.pack_into(">HH", file, file.index(b"colrnclx") + 8, primaries, transfer)
    return bytes(file)


def test_code_points_of_an_avif_name_its_space() -> None:
    pixels, plain = decode(avif_of(12, 13)), decode(encoded("AVIF"))
    assert np.abs(pixels - profiles.p3_as_srgb(plain)).max() <= 1
    np.testing.assert_array_equal(decode(avif_of(1, 13)), plain)
    np.testing.assert_array_equal(decode(avif_of(2, 2)), plain)
    linear = decode(avif_of(1, 8))
    assert np.abs(linear - profiles.gamma_as_srgb(plain, 1.0)).max() <= 3


def test_an_avif_whose_boxes_lie_is_an_image_or_refused() -> None:
    file = encoded("AVIF")
    for position in range(8, file.index(b"mdat")):
        for value in (0, 0x7F, 0xFF):
            broken = bytearray(file)
            broken[position] = value
            embedded_profiles.primary_item_code_points(broken)  # no error of any kind


def test_code_points_of_a_png_win_over_its_profile() -> None:
    file = encoded("PNG", icc_profile=profiles.ADOBE_RGB)
    tagged = file[:33] + png_chunk(b"cICP", bytes([12, 13, 0, 1])) + file[33:]
    assert np.abs(decode(tagged) - profiles.p3_as_srgb(PIXELS)).max() <= 1
    assert np.abs(decode(file) - profiles.adobe_as_srgb(PIXELS)).max() <= 1


def test_white_of_high_dynamic_range_is_the_white_of_broadcasting() -> None:
    signal = np.array([0.0, 0.3, 0.58, 0.75, 1.0])
    levels = np.rint(np.repeat(signal[None, :, None], 3, axis=2) * 255).astype(np.uint8)
    file = encoded("PNG", levels)
    pixels = decode(file[:33] + png_chunk(b"cICP", bytes([9, 16, 0, 1])) + file[33:])[0, :, 0]
    assert pixels[0] == 0 and 50 < pixels[1] < 110 and pixels[2] >= 250 and pixels[3] == pixels[4] == 255


def gamma_and_primaries(gamma: float, chromaticities: tuple[float, ...]) -> bytes:
    numbers = struct.pack(">8I", *(round(100_000 * value) for value in chromaticities))
    return png_chunk(b"gAMA", struct.pack(">I", round(100_000 * gamma))) + png_chunk(b"cHRM", numbers)


def test_gamma_and_primaries_of_a_png_count_where_nothing_else_is_said() -> None:
    file = encoded("PNG")
    adobe = gamma_and_primaries(256 / 563, (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06))
    assert np.abs(decode(file[:33] + adobe + file[33:]) - profiles.adobe_as_srgb(PIXELS)).max() <= 1
    standard = gamma_and_primaries(0.45455, (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06))
    alone = png_chunk(b"gAMA", struct.pack(">I", 100_000))
    for ignored in (standard, alone, png_chunk(b"sRGB", b"\0") + adobe, gamma_and_primaries(1.0, (0.0,) * 8)):
        np.testing.assert_array_equal(decode(file[:33] + ignored + file[33:]), PIXELS)


def test_a_camera_that_marks_adobe_rgb_in_exif_alone_is_believed() -> None:
    def exif(index: bytes) -> bytes:
        first = struct.pack(">2sHIHHHIII", b"MM", 42, 8, 1, 0x8769, 4, 1, 26, 0)
        camera = struct.pack(">HHHIHHHHIII", 2, 0xA001, 3, 1, 0xFFFF, 0, 0xA005, 4, 1, 56, 0)
        return b"Exif\0\0" + first + camera + struct.pack(">HHHI4sI", 1, 1, 2, 4, index, 0)

    pixels = decode(encoded("JPEG", exif=exif(b"R03\0")))
    assert distance(pixels, profiles.adobe_as_srgb(PIXELS)) < 1.5 < distance(pixels, PIXELS)
    np.testing.assert_array_equal(decode(encoded("JPEG", exif=exif(b"R98\0"))), decode(encoded("JPEG")))


IGNORED = {
    "press-in-rgb": profiles.press(2),
    "grey-in-rgb": profiles.GREY_1_8,
    "srgb": profiles.SRGB,
    "empty": b"",
    "text": b"no profile at all" * 20,
    "cut": profiles.DISPLAY_P3[:200],
    "no-curves": profiles.DISPLAY_P3.replace(b"TRC", b"XXX"),
    "offsets": profiles.DISPLAY_P3[:132] + b"\xff" * 100 + profiles.DISPLAY_P3[232:],
    "device-link": profiles.DISPLAY_P3.replace(b"mntr", b"link"),
    "too-long": profiles.DISPLAY_P3 + bytes(embedded_profiles.MAX_PROFILE_BYTES),
}


@pytest.mark.parametrize("name", IGNORED)
@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "JPEG"])
def test_a_profile_that_does_not_describe_the_image_changes_no_pixel(name: str, image_format: str) -> None:
    file = encoded(image_format, icc_profile=IGNORED[name])
    np.testing.assert_array_equal(decode(file), decode(encoded(image_format)))


def test_a_profile_of_rgb_in_an_image_of_inks_changes_no_pixel() -> None:
    file = encoded("JPEG", mode="CMYK", icc_profile=profiles.DISPLAY_P3)
    np.testing.assert_array_equal(decode(file), decode(encoded("JPEG", mode="CMYK")))


@pytest.mark.parametrize("image_format", [*LOSSLESS, *LOSSY])
def test_reduced_and_turned_images_are_converted_like_whole_ones(image_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = encoded(image_format, icc_profile=profiles.DISPLAY_P3, exif=exif.tobytes())
    whole, reduced = decode(file), decode(file, min_side=40)
    assert whole.shape == (136, 88, 3)
    if image_format == "WEBP":  # decoded whole
        np.testing.assert_array_equal(reduced, whole)
        return
    assert reduced.shape == (68, 44, 3)
    assert np.abs(reduced.astype(int) - np.asarray(Image.fromarray(whole).reduce(2))).mean() < 2


def test_colours_of_a_palette_and_behind_transparency_are_converted() -> None:
    palette = decode(encoded("PNG", PIXELS // 128 * 128, "P", icc_profile=profiles.DISPLAY_P3))
    plain = decode(encoded("PNG", PIXELS // 128 * 128, "P"))
    assert np.abs(palette - profiles.p3_as_srgb(plain)).max() <= 1
    clear = np.dstack([PIXELS, np.zeros(PIXELS.shape[:2], np.uint8)])
    file = io.BytesIO()
    Image.fromarray(clear).save(file, "PNG", icc_profile=profiles.DISPLAY_P3)
    assert (decode(file.getvalue()) == 255).all()


def test_a_profile_is_worked_out_once_and_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    worked_out: list[bytes] = []
    original = srgb._conversion
    monkeypatch.setattr(srgb, "_kept", srgb._Kept(2))

    def recorded(profile: bytes) -> srgb.Conversion | None:
        worked_out.append(profile)
        return original(profile)

    monkeypatch.setattr(srgb, "_conversion", recorded)
    for profile in (profiles.SRGB, profiles.SRGB, profiles.DISPLAY_P3, profiles.SRGB, profiles.ADOBE_RGB):
        srgb.conversion_for(profile, "RGB")
    assert worked_out == [profiles.SRGB, profiles.DISPLAY_P3, profiles.ADOBE_RGB]
    assert len(srgb._kept._conversions) == 2
    srgb.conversion_for(profiles.DISPLAY_P3, "RGB")
    assert worked_out[-1] == profiles.DISPLAY_P3, "the one that was used least recently was forgotten"


def test_a_conversion_ends_when_the_time_of_the_image_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_DECODE_S", 0.0)
    with pytest.raises(ImageTooLarge, match="too long"):
        decode(encoded("JPEG", icc_profile=profiles.DISPLAY_P3))


def test_damaged_profiles_give_an_image_or_a_service_error_in_little_time() -> None:
    rng = np.random.default_rng(20)
    changed = 0
    plain = decode(encoded("TIFF", PIXELS[:8, :8]))
    for profile in (profiles.DISPLAY_P3, profiles.ADOBE_RGB, profiles.press(3)):
        mode = "CMYK" if profile[16:20] == b"CMYK" else "RGB"
        for _ in range(150):
            broken = bytearray(profile)
            for position in rng.integers(0, len(broken), rng.integers(1, 5)):
                broken[position] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
            file = encoded("TIFF", PIXELS[:8, :8], mode, compression=None, icc_profile=bytes(broken))
            started = time.process_time()
            try:
                changed += not np.array_equal(decode(file, limits=Limits(max_pixels=1000)), plain)
            except ServiceError:
                pytest.fail("a profile refuses no image")
            assert time.process_time() - started < 1
    assert changed > 100


def test_images_without_a_profile_import_no_colour_management() -> None:
    code = (
        "import io, sys; from PIL import Image; from visionserve.images import decode\n"
        "for kind in ('JPEG', 'PNG', 'WEBP', 'TIFF', 'GIF', 'BMP'):\n"
        "    file = io.BytesIO(); Image.new('RGB', (9, 9)).save(file, kind); decode(file.getvalue())\n"
        "assert not {'PIL.ImageCms', 'PIL._imagingcms'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_text_chunks_cannot_pose_as_code_points() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "x\0\0\0\4cICP\x0c\r\0\1")
    np.testing.assert_array_equal(decode(encoded("PNG", pnginfo=text)), PIXELS)
