"""Fuzz the image decoders: mutated files through `visionserve.images.decode`, in processes that may die.

    python -m scripts.fuzz_images --cpu-seconds 3600 --kinds heic avif profile --failures fuzz

Each file has to end as an image or a ServiceError. What crashes the process, raises anything else or takes longer than
--slow is a failure; its file is kept. An input whose outcome is new, by the line that refused it or by the size and
colour of its image, becomes a seed itself. Decoders in C are not instrumented: the outcome stands in for coverage.
"""

import argparse
import faulthandler
import io
import json
import multiprocessing
import resource
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image

from visionserve.errors import ServiceError
from visionserve.formats import rgb_spaces
from visionserve.images import Limits, decode

LIMITS = Limits(max_bytes=4 << 20, max_pixels=4_000_000)
MEMORY = 2 << 30  # of address space, beside what the libraries take
ROUND_S = 20.0  # CPU seconds of a process, which then reports and is replaced
_INTERESTING = (0, 1, 2, 0x7F, 0x80, 0xFF)
_MAX_SEEDS = 400
_LONGEST_S = 7200.0  # of the clock, for a process that others leave no CPU


@dataclass
class Report:
    """What a process has tried."""

    inputs: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    cpu_s: float = 0.0
    slowest_s: float = 0.0
    failures: list[str] = field(default_factory=list)

    def add(self, other: "Report") -> None:
        """Take over what another process has tried."""
        self.inputs += other.inputs
        self.outcomes += other.outcomes
        self.cpu_s += other.cpu_s
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.failures += other.failures

    def text(self) -> str:
        """Return the report as JSON."""
        return json.dumps(vars(self), indent=1)


def seeds(kind: str) -> list[bytes]:
    """Return intact files of a kind."""
    return _KINDS[kind]()


def mutated(file: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Return a file with a few bytes, words or pieces changed, or a piece of another one."""
    broken = bytearray(file)
    for _ in range(rng.integers(1, 6)):
        at = int(rng.integers(0, len(broken) or 1))
        match rng.integers(0, 8):
            case 0 | 1:
                broken[at : at + 1] = bytes([rng.choice(_INTERESTING)])
            case 2:
                broken[at : at + 1] = bytes([rng.integers(0, 256)])
            case 3:  # a length or an offset
                value = (0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, len(broken), int(rng.integers(0, 4096)))[
                    rng.integers(0, 7)
                ]
                broken[at : at + 4] = struct.pack(">I", value)
            case 4:
                del broken[at : at + int(rng.integers(1, 64))]
            case 5:
                piece = bytes(broken[at : at + int(rng.integers(1, 256))])
                to = int(rng.integers(0, len(broken) or 1))
                broken[to:to] = piece
            case 6:
                start = int(rng.integers(0, len(other) or 1))
                piece = other[start : start + int(rng.integers(1, 256))]
                broken[at : at + len(piece)] = piece
            case 7 if rng.integers(0, 8) == 0:
                del broken[at:]
    return bytes(broken)


def outcome(file: bytes, min_side: int) -> str:
    """Decode a file and say how that ended."""
    try:
        pixels = decode(file, limits=LIMITS, min_side=min_side)
    except ServiceError as error:
        cause = error.__cause__
        trace = cause.__traceback__ if cause else None
        while trace and trace.tb_next:
            trace = trace.tb_next
        line = f" {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else ""
        return f"{type(error).__name__} {type(cause).__name__}{line}"
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise AssertionError(f"{pixels.shape} {pixels.dtype}")
    return f"image {int(np.log2(pixels.size))} {int(pixels.mean()) // 32}"


def explore(kind: str, seed: int, seconds: float, slow_s: float, folder: Path, results: Connection) -> None:
    """Decode mutated files for ``seconds`` of CPU time, and send a Report; the file at work lies in ``folder``."""
    faulthandler.enable()
    _limit(seconds)
    rng = np.random.default_rng(seed)
    corpus, seen, report = seeds(kind), set[str](), Report()
    started = time.process_time()
    while time.process_time() - started < seconds:
        first, second = (corpus[index] for index in rng.integers(0, len(corpus), 2))
        file = mutated(first, second, rng)
        (folder / "current").write_bytes(file)
        before = time.process_time()
        try:
            result = outcome(file, int(rng.integers(1, 64)))
        except Exception as error:  # noqa: BLE001 - anything but a ServiceError is what is looked for
            report.failures.append(_keep(folder, file, f"{type(error).__name__}: {error}"))
            continue
        took = time.process_time() - before
        report.slowest_s = max(report.slowest_s, took)
        if took > slow_s:
            report.failures.append(_keep(folder, file, f"{took:.1f} s: {result}"))
        report.inputs[kind] += 1
        report.outcomes[result.split(" ", maxsplit=1)[0]] += 1
        if result not in seen and file and len(corpus) < _MAX_SEEDS:
            corpus.append(file)
        seen.add(result)
    report.cpu_s = time.process_time() - started
    results.send(report)


def fuzz(kinds: list[str], cpu_seconds: float, seed: int, slow_s: float, folder: Path) -> Report:
    """Run processes one after the other, a kind each in turn, until they have used so much CPU time."""
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    total, number = Report(), 0
    while total.cpu_s < cpu_seconds:
        kind, number = kinds[number % len(kinds)], number + 1
        receiver, sender = context.Pipe(duplex=False)
        seconds = min(ROUND_S, cpu_seconds - total.cpu_s)
        arguments = (kind, seed + number, seconds, slow_s, folder, sender)
        process = context.Process(target=explore, args=arguments)
        process.start()
        sender.close()
        try:
            if not receiver.poll(_LONGEST_S):
                process.kill()
            total.add(receiver.recv())
        except EOFError:
            process.join()
            sentence = f"{kind}: the process died with {process.exitcode}"
            total.failures.append(_keep(folder, (folder / "current").read_bytes(), sentence))
            total.cpu_s += seconds / 2  # unknown; without it a crash at every start would never end
        process.join()
        (folder / "report.json").write_text(total.text(), encoding="utf-8")
    return total


def _limit(seconds: float) -> None:
    """Bound the memory of this process, and the time of a decoder that never returns: SIGXCPU ends it."""
    longest = round(time.process_time() + 2 * seconds + 60)
    resource.setrlimit(resource.RLIMIT_CPU, (longest, longest + 10))
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _keep(folder: Path, file: bytes, sentence: str) -> str:
    path = folder / f"failure-{zlib.crc32(file):08x}"
    path.write_bytes(file)
    return f"{path.name}: {sentence}"


def _pixels(height: int = 96, width: int = 136) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([columns * 255 // width, rows * 255 // height, 9 * (columns ^ rows) % 256], axis=2).astype(np.uint8)


def _saved(image_format: str, mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(_pixels()).convert(mode).save(file, image_format, **options)
    return file.getvalue()


def _heic() -> list[bytes]:
    import pillow_heif

    pillow_heif.register_heif_opener()
    files = [_saved("HEIF", mode, quality=60) for mode in ("RGB", "RGBA", "L")]
    files += [_saved("HEIF", icc_profile=rgb_spaces.adobe_rgb()), _saved("HEIF", color_primaries=12)]
    files += [_saved("HEIF", save_all=True, append_images=[Image.fromarray(255 - _pixels())])]
    wide = (_pixels().astype(np.uint16) * 257).tobytes()
    file = io.BytesIO()
    pillow_heif.from_bytes("RGB;16", _pixels().shape[1::-1], wide).save(file, quality=60)
    return [*files, file.getvalue()]


def _avif() -> list[bytes]:
    files = [
        _saved("AVIF", mode, speed=10, subsampling=chroma) for mode in ("RGB", "RGBA") for chroma in ("4:2:0", "4:4:4")
    ]
    files += [_saved("AVIF", speed=10, icc_profile=rgb_spaces.adobe_rgb()), _saved("AVIF", speed=10, tile_rows=1)]
    return [*files, _saved("AVIF", speed=10, save_all=True, append_images=[Image.fromarray(255 - _pixels())])]


def _others() -> list[bytes]:
    files = [_saved(name) for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")]
    files += [_saved("JPEG", "CMYK", progressive=True), _saved("TIFF", "CMYK", compression="tiff_lzw")]
    return [*files, _saved("WEBP", lossless=True), _saved("PNG", "P"), _saved("PNG", "LA"), _saved("TIFF", "I;16")]


def _profiles() -> list[bytes]:
    """Small files that are mostly profile."""
    spaces = [rgb_spaces.adobe_rgb(), *(rgb_spaces.from_code_points(12, transfer) for transfer in (8, 13, 16))]
    small = Image.fromarray(_pixels(8, 8))
    files = []
    for profile in filter(None, spaces):
        for image_format, mode in (("PNG", "RGB"), ("JPEG", "RGB"), ("TIFF", "RGB"), ("WEBP", "RGBA")):
            file = io.BytesIO()
            small.convert(mode).save(file, image_format, icc_profile=profile)
            files.append(file.getvalue())
    for mode, profile in (("CMYK", _table_profile(b"CMYK", 4)), ("RGB", _table_profile(b"RGB ", 3))):
        file = io.BytesIO()
        small.convert(mode).save(file, "TIFF", icc_profile=profile)
        files.append(file.getvalue())
    return files


def _table_profile(space: bytes, channels: int, points: int = 3) -> bytes:
    """Return a profile with a lookup table (ICC.1, lut8Type)."""
    matrix = struct.pack(">9i", *([65536, 0, 0, 0] * 3)[:9])
    table = bytes(number * 7 % 256 for number in range(3 * points**channels))
    curve = bytes(range(256))
    element = (
        b"mft1" + bytes(4) + struct.pack(">BBBx", channels, 3, points) + matrix + curve * channels + table + curve * 3
    )
    body = struct.pack(">I4sII", 1, b"A2B0", 144, len(element)) + element
    header = struct.pack(
        ">I4xI4s4s4s12s4s28x", 128 + len(body), 0x02400000, b"prtr", space, b"Lab ", bytes(12), b"acsp"
    )
    return header + struct.pack(">3i", 63190, 65536, 54061) + bytes(48) + body


_KINDS: dict[str, Callable[[], list[bytes]]] = {
    "heic": _heic,
    "avif": _avif,
    "profile": _profiles,
    "others": _others,
}


def main(arguments: list[str] | None = None) -> int:
    """Fuzz, print the report and return 1 where something failed."""
    parser = argparse.ArgumentParser(prog="python -m scripts.fuzz_images", description=__doc__.splitlines()[0])
    parser.add_argument("--cpu-seconds", type=float, default=60.0, help="CPU time to use; default: 60")
    parser.add_argument("--kinds", nargs="+", choices=_KINDS, default=list(_KINDS), help="default: all")
    parser.add_argument("--seed", type=int, default=0, help="another seed mutates otherwise; default: 0")
    parser.add_argument("--slow", type=float, default=4.0, help="CPU seconds of one file that count as a failure")
    parser.add_argument("--failures", type=Path, default=Path("fuzz"), help="folder of the report and of failing files")
    args = parser.parse_args(arguments)
    report = fuzz(args.kinds, args.cpu_seconds, args.seed, args.slow, args.failures)
    print(report.text())
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
