"""HEIC and AVIF of 8, 10 and 12 bits as other programs write them, kept in `deep/`, and what each of them shows.

`python -m tests.unit.visionserve.formats.deep_images` writes the files again, with avifenc 0.11 and heif-enc 1.15
(Debian 12: libavif-bin, libheif-examples); `command` has the command of each. Those with a gain map are put together
here: no released tool writes them.
"""

import io
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image

FOLDER = Path(__file__).with_name("deep")
WIDTH, HEIGHT = 34, 26
_AVIFENC = "avifenc -s 8 --min 0 --max 12 --minalpha 0 --maxalpha 10"
_HEIF_ENC = "heif-enc -q 95"
_YUV = ("444", "422", "420")


def picture() -> np.ndarray:
    """A slope of colours with a red and a blue square, (H, W, 3) uint8: no turn or mirror image looks like another."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    slope = (40 + x * 180 // (WIDTH - 1), 200 - y * 150 // (HEIGHT - 1), 60 + (x + y) * 140 // (WIDTH + HEIGHT - 2))
    pixels = np.stack(slope, axis=2).astype(np.uint8)
    pixels[2:10, 2:12], pixels[16:24, 22:32] = (230, 40, 40), (40, 60, 220)
    return pixels


def alpha() -> np.ndarray:
    """Opaque on the left, nearly transparent on the right: (H, W, 1) uint8."""
    return np.where(np.arange(WIDTH) < WIDTH // 2, 255, 80).astype(np.uint8)[None, :, None].repeat(HEIGHT, 0)


def options() -> Iterator[tuple[str, str]]:
    """Yield each file's name and the command line that wrote it, but for its last word, the name."""
    for bits in (8, 10, 12):
        for yuv in _YUV:
            for extent in ("full", "limited"):
                yield f"{bits}-{yuv}-{extent}.avif", f"{_AVIFENC} -d {bits} -y {yuv} -r {extent} rgb.png"
        for extent in ("full", "limited"):
            yield f"{bits}-grey-{extent}.avif", f"{_AVIFENC} -d {bits} -y 400 -r {extent} rgb.png"
        yield f"{bits}-alpha.avif", f"{_AVIFENC} -d {bits} rgba.png"
        deep = "" if bits == 8 else "16"
        for yuv in _YUV:
            yield f"{bits}-{yuv}-full.heic", f"{_HEIF_ENC} -b {bits} -p chroma={yuv} rgb{deep}.png -o"
        yield f"{bits}-alpha.heic", f"{_HEIF_ENC} -b {bits} -p chroma=444 rgba{deep}.png -o"
        yield f"{bits}-grey-full.heic", f"{_HEIF_ENC} -b {bits} grey{deep}.png -o"
    yield "10-premultiplied.avif", f"{_AVIFENC} -d 10 -p rgba.png"
    premultiplied = f"{_HEIF_ENC} -b 10 -p chroma=444 --premultiplied-alpha"
    yield "10-premultiplied.heic", f"{premultiplied} premultiplied16.png -o"
    for turn in (1, 2, 3):
        yield f"10-turned-{turn}.avif", f"{_AVIFENC} -d 10 --irot {turn} rgb.png"
    for axis in (0, 1):
        yield f"10-mirrored-{axis}.avif", f"{_AVIFENC} -d 10 --imir {axis} rgb.png"
        yield f"8-turned-1-mirrored-{axis}.avif", f"{_AVIFENC} --irot 1 --imir {axis} rgb.png"
    yield "10-sequence.avif", f"{_AVIFENC} -d 10 rgb.png inverted.png"
    yield "10-sequence-turned-1.avif", f"{_AVIFENC} -d 10 --irot 1 rgb.png inverted.png"
    yield "8-identity-matrix.avif", f"{_AVIFENC} --cicp 1/13/0 rgb.png"
    yield "8-ycgco-matrix.avif", f"{_AVIFENC} --cicp 1/13/8 rgb.png"
    yield "10-thumbnail.heic", f"{_HEIF_ENC} -b 10 -p chroma=444 -t 16 rgb16.png -o"
    yield "8-cropped.avif", f"{_AVIFENC} --crop 4,2,24,20 rgb.png"


# Not in the folder: made from two of its files when a test asks for them.
WITH_GAIN_MAP = ("10-gain-map.avif", "10-gain-map.heic")
CROPPED = "8-cropped.avif"
NAMES = tuple(name for name, _ in options() if name != CROPPED) + WITH_GAIN_MAP


def read(name: str) -> bytes:
    """Return the bytes of a file."""
    if name == "10-gain-map.avif":
        return with_gain_map(read("10-444-full.avif"), read("8-grey-full.avif"))
    if name == "10-gain-map.heic":  # heif-enc wraps its images, libheif's newer releases do not
        deep = _heic("RGB;16", picture().astype(np.uint16) * 257)
        return with_gain_map(deep, _heic("L", picture()[:, :, 0].copy()))
    return (FOLDER / name).read_bytes()


def shown(name: str) -> np.ndarray:
    """Return what a file shows, upright and on white: (H, W, 3) float."""
    pixels = picture().astype(float)
    if "grey" in name:
        pixels = np.asarray(Image.fromarray(picture()).convert("L")).astype(float)[:, :, None].repeat(3, 2)
    if "alpha" in name or "premultiplied" in name:
        opacity = alpha() / 255
        pixels = pixels * opacity + 255 * (1 - opacity)
    turns = int(name.partition("turned-")[2][:1] or 0)  # counted against the clock, as irot is
    pixels = np.rot90(pixels, turns)
    if "mirrored-0" in name:
        return pixels[::-1]
    return pixels[:, ::-1] if "mirrored-1" in name else pixels


def _heic(mode: str, pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    pillow_heif.from_bytes(mode, (WIDTH, HEIGHT), pixels.tobytes()).save(file, quality=95, chroma=444)
    return file.getvalue()


def with_gain_map(base: bytes, gains: bytes) -> bytes:
    """Return a file of a primary image and the gain map that makes it brighter on HDR screens (ISO 21496-1).

    Args:
        base, gains: each a file of one image.
    """
    first, second = _Image(base), _Image(gains)
    metadata = struct.pack(">HHB", 0, 0, 0x40) + struct.pack(">4I", 0, 1, 2, 1)  # base colours; headrooms
    metadata += struct.pack(">10I", 0, 1, 1, 1, 1, 1, 0, 1, 0, 1)  # least and largest gain, gamma, offsets
    content = (first.data, second.data, b"\0" + metadata)
    types = (first.type, second.type, b"tmap")
    properties = first.properties + second.properties
    counts = len(first.properties), len(second.properties)
    size_at = next(at for at, prop in enumerate(first.properties, 1) if prop[4:8] == b"ispe")
    places = [list(range(1, counts[0] + 1)), list(range(counts[0] + 1, sum(counts) + 1)), [size_at]]
    entries = b"".join(
        struct.pack(">HB", item, len(place))
        + bytes(at | 0x80 * (properties[at - 1][4:8] in _ESSENTIAL) for at in place)
        for item, place in enumerate(places, 1)
    )
    infos = b"".join(
        _full_box(b"infe", struct.pack(">HH4sx", item, 0, kind), version=2, flags=int(item == 2))
        for item, kind in enumerate(types, 1)
    )

    def meta(start: int) -> bytes:
        locations, at = b"", start
        for item, part in enumerate(content, 1):
            locations += struct.pack(">HHHII", item, 0, 1, at, len(part))
            at += len(part)
        boxes = (
            _full_box(b"hdlr", struct.pack(">4x4s12xx", b"pict")),
            _full_box(b"pitm", struct.pack(">H", 1)),
            _full_box(b"iloc", struct.pack(">HH", 0x4400, 3) + locations),
            _full_box(b"iinf", struct.pack(">H", 3) + infos),
            _box(b"iprp", _box(b"ipco", b"".join(properties)) + _full_box(b"ipma", struct.pack(">I", 3) + entries)),
            _full_box(b"iref", _box(b"dimg", struct.pack(">HHHH", 3, 2, 1, 2))),
            _box(b"grpl", _full_box(b"altr", struct.pack(">IIII", 100, 2, 3, 1))),
        )
        return _full_box(b"meta", b"".join(boxes))

    kind = _box(b"ftyp", first.brand + bytes(4) + first.brand + b"mif1" + b"tmap")
    return kind + meta(len(kind) + len(meta(0)) + 8) + _box(b"mdat", b"".join(content))


_ESSENTIAL = (b"av1C", b"hvcC", b"clap")


class _Image:
    """The only image of a file: its brand, the type of its item, its properties and its coded data."""

    def __init__(self, file: bytes) -> None:
        boxes = dict(_boxes(file))
        self.brand = boxes[b"ftyp"][:4]
        self.type = {b"avif": b"av01", b"heic": b"hvc1", b"heix": b"hvc1"}[self.brand]
        properties = dict(_boxes(dict(_boxes(boxes[b"meta"][4:]))[b"iprp"]))
        kept = [_box(kind, content) for kind, content in _boxes(properties[b"ipco"])]
        association = properties[b"ipma"]  # version and flags, one entry, its item in two bytes, how many
        self.properties = [kept[(at & 0x7F) - 1] for at in association[11 : 11 + association[10]]]
        self.data = boxes[b"mdat"]


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    while data:
        size, kind = struct.unpack_from(">I4s", data)
        yield kind, data[8:size]
        data = data[size:]


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _full_box(kind: bytes, content: bytes, version: int = 0, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags) + content)


def _write_pictures(folder: Path) -> None:
    rgb, opacity = picture(), alpha()
    grey = np.asarray(Image.fromarray(rgb).convert("L"))
    rgba = np.dstack([rgb, opacity])
    premultiplied = np.dstack([np.rint(rgb * (opacity / 255)).astype(np.uint8), opacity])
    for name, pixels in (("rgb", rgb), ("rgba", rgba), ("inverted", 255 - rgb), ("grey", grey)):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "grey16.png")
    for name, pixels in (("rgb", rgb), ("rgba", rgba), ("premultiplied", premultiplied)):
        _write_png16(folder / f"{name}16.png", pixels.astype(np.uint16) * 257)


def _write_png16(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W, 3 or 4) uint16, which Pillow cannot."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, 2 if channels == 3 else 6, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def main() -> None:
    """Write all files."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        _write_pictures(Path(folder))
        for name, command in options():
            subprocess.run([*command.split(), str(FOLDER / name)], cwd=folder, check=True, capture_output=True)


if __name__ == "__main__":
    main()
