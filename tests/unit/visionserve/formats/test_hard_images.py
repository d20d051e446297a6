"""Odd, broken and hostile files: an image or a ServiceError, in little time and memory, and nothing else."""

import csv
import io
import json
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.visionserve.formats import costly_images
from tests.unit.visionserve.formats.costly_images import png_chunk
from visionserve.errors import CorruptImage, ImageTooLarge, ServiceError
from visionserve.formats import limits
from visionserve.images import decode

REPOSITORY = Path(__file__).parents[4]
FOLDER = Path(os.environ.get("VISIONSERVE_DATA", "")) / "hard-images"
needs_data = pytest.mark.skipif(
    "VISIONSERVE_DATA" not in os.environ or not FOLDER.is_dir(),
    reason="needs the folder hard-images: set VISIONSERVE_DATA to the folder that holds it.",
)
ACCEPTED = {"JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"}

# Files that index.csv lists as readable, for their header is, and that Pillow itself does not load.
UNREADABLE = {
    **dict.fromkeys(
        (
            "c31a6b9d5faf.bin",
            "17a8b6ec0ea2.bin",
            "71958c9f01b3.bin",
            "739239f7561c.bin",
            "d0a9ce91c4fe.bin",
            "526b462110b0.bin",
        ),
        "a PNG whose compressed pixels are broken",
    ),
    **dict.fromkeys(("eb328ba61626.bin", "93faccd311a6.bin"), "a PNG cut inside a chunk"),
    "c76009a8070b.png": "an animated PNG whose frames come in the wrong order",
}


def drawn(image_format: str, **options: object) -> bytes:
    rows, columns = np.mgrid[0:11, 0:17]
    pixels = np.stack([15 * columns, 25 * rows, 9 * (columns ^ rows)], axis=2).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, image_format, **options)
    return file.getvalue()


SEEDS = {
    "jpeg": drawn("JPEG"),
    "progressive": drawn("JPEG", progressive=True),
    "png": drawn("PNG"),
    "webp": drawn("WEBP"),
    "webp-lossless": drawn("WEBP", lossless=True),
    "gif": drawn("GIF"),
    "bmp": drawn("BMP"),
    "tiff": drawn("TIFF"),
    "tiff-lzw": drawn("TIFF", compression="tiff_lzw"),
    "tiff-jpeg": drawn("TIFF", compression="jpeg"),
}


def damaged(file: bytes, rng: np.random.Generator) -> bytes:
    """Return the file with a few bytes changed, and sometimes a piece cut out, doubled or lost from the end."""
    broken = bytearray(file)
    for position in rng.integers(0, len(broken), rng.integers(0, 6)):
        broken[position] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, int(rng.integers(0, 256))])
    start, stop = sorted(rng.integers(0, len(broken), 2))
    match rng.integers(0, 5):
        case 0:
            del broken[start:stop]
        case 1:
            broken[start:start] = broken[start:stop]
        case 2:
            del broken[stop:]
    return bytes(broken)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_damaged_file_gives_an_image_or_a_service_error(seed: str) -> None:
    rng = np.random.default_rng(list(seed.encode()))
    outcomes = {"image": 0, "error": 0}
    for _ in range(300):
        try:
            pixels = decode(damaged(SEEDS[seed], rng), min_side=int(rng.integers(1, 20)))
        except ServiceError:
            outcomes["error"] += 1
        else:
            assert pixels.ndim == 3
            assert pixels.shape[2] == 3
            assert pixels.dtype == np.uint8
            outcomes["image"] += 1
    assert min(outcomes.values()) > 0, "damage that always or never matters tests nothing"


@pytest.mark.parametrize(
    "junk",
    [
        b"\xff\xd8\xff" + bytes(9_000_000),
        b"\xff\xd8" + b"\xff" * 9_000_000,
        b"\xff\xd8" + b"\xff\xd0" * 4_500_000,
        b"BM" + b"\xff" * 9_000_000,
    ],
    ids=["zeros", "fill", "restarts", "bitmap"],
)
def test_megabytes_of_junk_behind_a_signature_are_refused_in_seconds(junk: bytes) -> None:
    started = time.monotonic()
    with pytest.raises(ServiceError):
        decode(junk)
    assert time.monotonic() - started < 5


def test_a_header_without_its_pixels_is_too_large_not_corrupt() -> None:
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    with pytest.raises(ImageTooLarge):
        decode(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b""))


def test_a_jpeg_with_hundreds_of_scans_is_refused() -> None:
    file = SEEDS["progressive"]
    last_scan = file[file.rindex(b"\xff\xda") : -2]
    assert decode(file[:-2] + 20 * last_scan + file[-2:]).shape == (11, 17, 3)
    with pytest.raises(ImageTooLarge, match="scans"):
        decode(file[:-2] + 200 * last_scan + file[-2:])


def test_bytes_that_look_like_scans_inside_a_segment_or_behind_the_end_do_not_count() -> None:
    file = SEEDS["jpeg"]
    thumbnails = b"\xff\xe5" + struct.pack(">H", 2 + 600) + 300 * b"\xff\xda"
    film = 300 * b"\xff\xda"
    np.testing.assert_array_equal(decode(file[:2] + thumbnails + file[2:] + film), decode(file))


def test_a_tiff_with_a_giant_tile_is_refused_however_small_the_image() -> None:
    tags = {256: 1, 257: 1, 258: 8, 259: 8, 262: 1, 277: 1, 322: 100_000, 323: 100_000, 324: 8, 325: 1}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    with pytest.raises(ImageTooLarge):
        decode(b"II*\0" + struct.pack("<IIH", 12, 0, len(tags)) + directory + bytes(4))


ZIPPED = zlib.compress(bytes(100_000_000))
TEXT_BOMBS = {
    "zTXt": b"Comment\0\0" + ZIPPED,
    "iTXt": b"Comment\0\1\0\0\0" + ZIPPED,
    "iCCP": b"profile\0\0" + ZIPPED,
    "zTXt-exif": b"Raw profile type exif\0\0" + ZIPPED,
    "iTXt-xmp": b"XML:com.adobe.xmp\0\1\0\0\0" + ZIPPED,
    "tEXt-long": b"Comment\0" + b"x" * 400_000,
    "zTXt-broken": b"Comment\0\0" + b"no zlib",
}


@pytest.mark.parametrize("name", TEXT_BOMBS)
def test_the_texts_of_a_png_are_skipped_whatever_they_hold(name: str) -> None:
    chunk = png_chunk(name[:4].encode(), TEXT_BOMBS[name])
    file = SEEDS["png"]
    np.testing.assert_array_equal(decode(file[:33] + 20 * chunk + file[33:]), decode(file))


def test_a_png_keeps_the_orientation_that_stands_in_a_text() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    file = SEEDS["png"]
    turned = decode(file[:33] + png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(xmp)) + file[33:])
    assert turned.shape == (17, 11, 3)


# Decodes each file as serving does, and prints the CPU time and the memory that it took.
COSTS = """
import json, re, sys, time
from pathlib import Path
from visionserve.errors import ServiceError
from visionserve.images import decode
def kilobytes(name): return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
decode(Path(sys.argv[1], "warm-up").read_bytes())
costs = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    data = path.read_bytes()
    Path("/proc/self/clear_refs").write_text("5")
    before, started = kilobytes("VmRSS"), time.process_time()
    try: decode(data, min_side=404); outcome = "decoded"
    except ServiceError as error: outcome = error.message
    costs[path.name] = time.process_time() - started, (kilobytes("VmHWM") - before) / 1000, outcome
print(json.dumps(costs))
"""
ALLOWED_S, ALLOWED_MB = 3.0, 165 + 25


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux: it reads peaks from /proc.")
def test_no_legal_file_takes_more_time_or_memory_than_planned(tmp_path: Path) -> None:
    (tmp_path / "warm-up").write_bytes(SEEDS["jpeg"])
    for name, make in costly_images.FILES.items():
        (tmp_path / name).write_bytes(make())
    command = [sys.executable, "-c", COSTS, str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=240, check=True)
    costs = json.loads(done.stdout)
    too_much = {name: cost for name, cost in costs.items() if cost[0] > ALLOWED_S or cost[1] > ALLOWED_MB}
    assert not too_much
    assert sum(cost[2] == "decoded" for cost in costs.values()) > 10, "limits that refuse everything prove nothing"


def test_an_image_that_takes_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_DECODE_S", 0.0)
    with pytest.raises(ImageTooLarge, match="too long to decode"):
        decode(SEEDS["png"])


def index() -> list[dict[str, str]]:
    with (FOLDER / "index.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@needs_data
def test_every_hard_image_decodes_where_pillow_reads_it_and_is_refused_where_not() -> None:
    surprises = []
    for row in index():
        expected = row["format"] in ACCEPTED and not row["error"] and row["file"] not in UNREADABLE
        try:
            decode((FOLDER / row["file"]).read_bytes())
        except ServiceError as error:
            if expected:
                surprises.append(f"{row['file']} is refused: {error.message}")
        else:
            if not expected:
                surprises.append(f"{row['file']} decodes")
    assert not surprises


@needs_data
def test_the_exceptions_are_files_that_pillow_does_not_load_either() -> None:
    for name in UNREADABLE:
        file = (FOLDER / name).read_bytes()
        with pytest.raises(CorruptImage):
            decode(file)
        with pytest.raises((OSError, SyntaxError)):
            Image.open(io.BytesIO(file)).load()


# Runs with half a GiB more address space than the interpreter and its libraries take, and prints what each file cost.
BOUNDED = """
import json, resource, sys, time, warnings
from pathlib import Path
warnings.simplefilter("always")
warned = []
warnings.showwarning = lambda message, *rest: warned.append(str(message))
from visionserve.errors import ServiceError
from visionserve.images import decode
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (1 << 29)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
before, slowest = peak(), ("", 0.0)
for path in sorted(Path(sys.argv[1]).iterdir()):
    data, started = path.read_bytes(), time.monotonic()
    try: decode(data)
    except ServiceError: pass
    slowest = max(slowest, (path.name, time.monotonic() - started), key=lambda item: item[1])
print(json.dumps({"slowest": slowest, "growth": peak() - before, "warned": warned}))
"""


@needs_data
@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="needs Linux: it reads /proc and limits the address space."
)
def test_no_hard_image_takes_seconds_or_hundreds_of_megabytes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED, str(FOLDER)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    cost = json.loads(done.stdout)
    assert cost["slowest"][1] < 5, cost
    assert cost["growth"] < 300 * 1024 * 1024, cost
    assert not cost["warned"]
