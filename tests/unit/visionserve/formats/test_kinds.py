"""Variants of containers, as cameras, phones and printing presses write them, beside Pillow's reading of them."""

import base64
import io
import struct
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageOps

from tests.unit.visionserve.formats.profiles import DISPLAY_P3
from tests.unit.visionserve.formats.test_heif import BIG, avif, heic
from visionserve.errors import UnsupportedImage
from visionserve.images import decode

PICTURE = Image.fromarray(np.asarray(Image.fromarray(BIG).resize((640, 400))))
FILM = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(range(256)) * 400
ORIENTATION = 0x0112
# libjpeg-turbo 2.1.5's `cjpeg -arithmetic -quality 95 -sample 1x1` of 17 x 11 pixels (15 x, 23 y, 128). Pillow cannot
# write it; `djpeg` gives the pixels that `decode` does.
ARITHMETIC = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJBwYGCAsICQoKCgoKBggLDAsKDAkK"
    "Cgr/2wBDAQICAgICAgUDAwUKBwYHCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgr/yQARCAALABEDAREA"
    "AhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwD/AOfhjhmgl743Lx+MUktABeycLDcHd68ibs9rAgnh6e636aAExr6+46ogKeiwyrK5YVQ7AZaO"
    "KVz4qy9kfzTw0p5pHg6aOs+riZHEJfftDDIFJtu81FKcvBFQKcNZPff+eHZ+2AK8bYV4/wArZADX0kgtR5J2SyZ51HSD+p2H8Vj4jv/Z"
)


def jpeg(image: Image.Image = PICTURE, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, **options)
    return file.getvalue()


def with_segment(file: bytes, marker: int, content: bytes) -> bytes:
    """Return a JPEG with one more segment, the first."""
    return file[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + file[2:]


def by_pillow(file: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def exif(orientation: int, thumbnail: bytes = b"") -> bytes:
    """EXIF with an orientation, and a thumbnail in its second directory."""
    first = struct.pack("<HHHIHHI", 1, ORIENTATION, 3, 1, orientation, 0, 26 if thumbnail else 0)
    second = struct.pack("<HHHIIHHIII", 2, 0x0201, 4, 1, 56, 0x0202, 4, 1, len(thumbnail), 0) if thumbnail else b""
    return b"Exif\0\0II*\0\x08\0\0\0" + first + second + thumbnail


def ultra_hdr(orientation: int = 1, profile: bytes | None = None) -> bytes:
    """An image and its gain map, joined by an MPF segment, declared in XMP (Android's Ultra HDR 1.1)."""
    gain_map = with_segment(jpeg(PICTURE.convert("L").resize((160, 100))), 0xE1, _xmp('hdrgm:GainMapMax="2.3"'))
    directory = b'<Container:Directory><rdf:Seq><rdf:li Item:Semantic="GainMap" Item:Length="%d"/></rdf:Seq>'
    image = jpeg(icc_profile=profile, exif=exif(orientation))
    image = with_segment(image, 0xE1, _xmp('hdrgm:Version="1.0"', directory % len(gain_map)))
    size = len(image) + 4 + 86
    return with_segment(image, 0xE2, _mpf(size, len(gain_map))) + gain_map


def _xmp(attribute: str, more: bytes = b"") -> bytes:
    head = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:RDF><rdf:Description xmlns:hdrgm="
    return head + b'"http://ns.adobe.com/hdr-gain-map/1.0/" ' + attribute.encode() + b">" + more + b"</x:xmpmeta>"


def _mpf(first: int, second: int) -> bytes:
    """The index of a file of two images (CIPA DC-007): version, number of images, their sizes and places."""
    entries = struct.pack("<IIIHH", 0x030000, first, 0, 0, 0) + struct.pack("<IIIHH", 0, second, first - 8, 0, 0)
    tags = [(0xB000, 7, 4, b"0100"), (0xB001, 4, 1, struct.pack("<I", 2)), (0xB002, 7, 32, struct.pack("<I", 50))]
    index = b"".join(struct.pack("<HHI", *tag) + value for *tag, value in tags)
    return b"MPF\0II*\0\x08\0\0\0" + struct.pack("<H", 3) + index + bytes(4) + entries


@pytest.mark.parametrize("min_side", [None, 90])
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("profile", [None, DISPLAY_P3], ids=["srgb", "p3"])
def test_an_ultra_hdr_image_is_its_first_image(profile: bytes | None, orientation: int, min_side: int | None) -> None:
    plain = jpeg(icc_profile=profile, exif=exif(orientation))
    np.testing.assert_array_equal(
        decode(ultra_hdr(orientation, profile), min_side=min_side), decode(plain, min_side=min_side)
    )
    assert Image.open(io.BytesIO(ultra_hdr())).info["mpoffset"] > 0  # Pillow finds the index that was made here


@pytest.mark.parametrize("min_side", [None, 90])
def test_a_file_of_several_images_is_its_first_one(min_side: int | None) -> None:
    file = io.BytesIO()
    PICTURE.save(file, "MPO", save_all=True, append_images=[Image.new("RGB", PICTURE.size)], quality=95)
    assert Image.open(io.BytesIO(file.getvalue())).format == "MPO"
    np.testing.assert_array_equal(decode(file.getvalue(), min_side=min_side), decode(jpeg(), min_side=min_side))


def test_a_film_behind_an_image_changes_nothing() -> None:
    np.testing.assert_array_equal(decode(jpeg() + FILM), decode(jpeg()))
    box = struct.pack(">I4s", 8 + len(FILM), b"mpvd") + FILM  # Motion photo 1.0, for HEIC and AVIF
    for file in (heic(), avif()):
        np.testing.assert_array_equal(decode(file + box), decode(file))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_thumbnail_in_front_is_not_the_image(orientation: int) -> None:
    file = jpeg(exif=exif(orientation, jpeg(PICTURE.resize((64, 40)))))
    np.testing.assert_array_equal(decode(file), by_pillow(file))


@pytest.mark.parametrize("transform", [None, 0, 2], ids=["no-marker", "cmyk", "ycck"])
def test_inks_are_read_as_pillow_reads_them(transform: int | None) -> None:
    """Adobe's marker says that the values are inverted, and whether the inks are YCCK."""
    file = jpeg(PICTURE.convert("CMYK"))
    at = file.index(b"\xff\xeeW"[:2])
    size = 2 + int.from_bytes(file[at + 2 : at + 4], "big")
    marker = bytearray(file[at : at + size])
    assert marker[4:9] == b"Adobe"
    if transform is not None:
        marker[15] = transform
    file = file[:at] + (bytes(marker) if transform is not None else b"") + file[at + size :]
    np.testing.assert_array_equal(decode(file), by_pillow(file))


def test_an_arithmetic_jpeg_is_an_image() -> None:
    columns, rows = np.meshgrid(np.arange(17) * 15, np.arange(11) * 23)
    drawn = np.dstack([columns, rows, np.full_like(rows, 128)])
    assert np.abs(decode(ARITHMETIC).astype(int) - drawn).max() < 12
    np.testing.assert_array_equal(decode(ARITHMETIC), by_pillow(ARITHMETIC))


@pytest.mark.parametrize(
    ("frame", "bits", "name"),
    [
        (0xC1, 12, "JPEG of 12 bits"),
        (0xC3, 16, "JPEG of 16 bits"),
        (0xC5, 8, "hierarchical JPEG"),
        (0xF7, 8, "JPEG-LS"),
    ],
)
def test_a_jpeg_of_another_kind_is_unsupported_by_name(frame: int, bits: int, name: str) -> None:
    file = bytearray(jpeg())
    at = file.index(b"\xff\xc0")
    file[at + 1], file[at + 4] = frame, bits
    with pytest.raises(UnsupportedImage, match=f"Unsupported image format {name}"):
        decode(bytes(file))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_and_avif_are_upright_whatever_turns_them(orientation: int) -> None:
    """Their own properties irot and imir turn them; EXIF, which phones write beside those, must not do it again."""
    tags = Image.Exif()
    tags[ORIENTATION] = tags[ORIENTATION + 1] = orientation
    upright = np.asarray(ImageOps.exif_transpose(_tagged(orientation)))
    for written in (heic(exif=tags.tobytes()), avif(exif=tags.tobytes())):
        assert (b"irot" in written or b"imir" in written) == (orientation > 1)
        # Pillow's encoder takes the tag out, so the one behind it becomes what phones leave there.
        keeps = _short(ORIENTATION) in written
        file = written if keeps else written.replace(_short(ORIENTATION + 1), _short(ORIENTATION))
        assert _short(ORIENTATION) in file
        decoded = decode(file)
        assert decoded.shape == upright.shape
        assert np.abs(decoded.astype(int) - upright).mean() < 4


def _short(tag: int) -> bytes:
    """The start of an entry of EXIF that holds one 16-bit number."""
    return struct.pack(">HHI", tag, 3, 1)


def _tagged(orientation: int) -> Image.Image:
    file = io.BytesIO()
    Image.fromarray(BIG).save(file, "PNG", exif=exif(orientation)[6:])
    return Image.open(file)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "GIF"])
def test_several_frames_and_an_orientation_are_the_first_frame_upright(kind: str) -> None:
    file = io.BytesIO()
    first, later = Image.fromarray(BIG).quantize(16).convert("RGB"), Image.new("RGB", BIG.shape[1::-1], "magenta")
    options: dict[str, Any] = {} if kind == "GIF" else {"exif": exif(6)[6 if kind != "WEBP" else 0 :]}
    if kind == "WEBP":
        options["lossless"] = True
    first.save(file, kind, save_all=True, append_images=[later, later], **options)
    expected = np.asarray(first) if kind == "GIF" else np.rot90(np.asarray(first), 3)
    np.testing.assert_array_equal(decode(file.getvalue()), expected)


def test_a_heic_with_several_images_and_a_thumbnail_is_its_primary_image() -> None:
    kind: Any = pillow_heif.HeifFile
    images = kind()
    for pixels in (BIG, 255 - BIG, BIG[:, ::-1]):
        images.add_from_pillow(Image.fromarray(np.ascontiguousarray(pixels)))
        images[len(images) - 1].info["thumbnails"] = [32]
    for primary, expected in enumerate((BIG, 255 - BIG, BIG[:, ::-1])):
        file = io.BytesIO()
        images.save(file, quality=95, chroma=444, primary_index=primary)
        assert np.abs(decode(file.getvalue()).astype(int) - expected).mean() < 4
