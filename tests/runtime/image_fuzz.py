"""Seeded fuzzing of what reads pictures: mutated files must end in pixels or in an ImageError.

    python tests/runtime/image_fuzz.py [--cases 10000] [--seed 0]

Each case is a function of (seed, number) alone. A child process reads them; its parent ends a case
after ``LIMIT_S`` seconds, starts a new child after a crash, and prints what it found as JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import select
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from typing import Any

LIMIT_S = 10.0
ADDRESS_SPACE_BYTES = 4_000_000_000
"""Beyond it an allocation fails: a machine's protection, the limit that counts is measured."""
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 10_001, 65_500, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFF0)


def seeds() -> list[bytes]:
    """Small valid files of every format that is read, and of their kinds."""
    import numpy as np
    from PIL import Image

    rows, columns = np.mgrid[0:61, 0:83]
    channels = [127 + 120 * np.sin(rows / a + columns / b) for a, b in ((5, 7), (3, -4), (9, 2))]
    rgb = Image.fromarray(np.stack(channels, 2).astype(np.uint8))
    rgba = rgb.convert("RGBA")
    rgba.putalpha(90)
    grey16 = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds: list[tuple[Any, str, dict[str, Any]]] = [
        (rgb, "JPEG", {"exif": exif}),
        (rgb, "JPEG", {"progressive": True, "subsampling": 0}),
        (rgb.resize((700, 500)), "JPEG", {"quality": 40}),
        (rgb.resize((300, 400)), "JPEG", {"progressive": True, "quality": 40}),
        (rgb.convert("L"), "JPEG", {}),
        (rgb.convert("CMYK"), "JPEG", {}),
        (rgb, "MPO", {"save_all": True, "append_images": [rgb]}),
        (rgb, "PNG", {"exif": exif}),
        (rgba, "PNG", {}),
        (grey16, "PNG", {}),
        (rgb.quantize(16), "PNG", {"transparency": 3}),
        (rgba, "PNG", {"save_all": True, "append_images": [rgba.rotate(90)]}),
        (rgb, "WEBP", {}),
        (rgba, "WEBP", {"lossless": True}),
        (rgba, "WEBP", {"save_all": True, "append_images": [rgba.rotate(90)]}),
        (rgb, "BMP", {}),
        (rgb.quantize(16), "BMP", {}),
        (rgb.quantize(16), "GIF", {"save_all": True, "append_images": [rgb.quantize(8)]}),
        (rgb, "TIFF", {}),
        (rgb, "TIFF", {"compression": "tiff_lzw"}),
        (rgba, "TIFF", {"compression": "tiff_adobe_deflate"}),
        (rgb, "TIFF", {"compression": "jpeg"}),
        (grey16, "TIFF", {}),
        (rgb, "PPM", {}),
    ]
    files = []
    for image, kind, options in kinds:
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        files.append(stream.getvalue())
    return files


def bit_flips(data: bytearray, chance: random.Random, _: list[bytes]) -> bytes:
    reach = chance.choice((len(data), min(len(data), 200)))
    for _flip in range(chance.choice((1, 2, 8, 64))):
        data[chance.randrange(reach)] ^= 1 << chance.randrange(8)
    return bytes(data)


def truncation(data: bytearray, chance: random.Random, _: list[bytes]) -> bytes:
    return bytes(data[: chance.randrange(len(data))])


def splice(data: bytearray, chance: random.Random, files: list[bytes]) -> bytes:
    other = chance.choice(files)
    return bytes(data[: chance.randrange(len(data))]) + other[chance.randrange(len(other)) :]


def repetition(data: bytearray, chance: random.Random, _: list[bytes]) -> bytes:
    start = chance.randrange(len(data))
    part = data[start : start + chance.choice((1, 4, 64, 1000))]
    return bytes(data[:start] + part * chance.choice((2, 50, 3000)) + data[start:])


def length_fields(data: bytearray, chance: random.Random, _: list[bytes]) -> bytes:
    """Extreme integers of 2 or 4 bytes, either byte order, most of them where headers are."""
    for _field in range(chance.choice((1, 1, 2, 4))):
        width = chance.choice((2, 4))
        reach = chance.choice((min(len(data), 120), len(data))) - width
        value = chance.choice(EXTREMES) & ((1 << 8 * width) - 1)
        position = chance.randrange(max(reach, 1))
        order: Any = chance.choice(("little", "big"))
        data[position : position + width] = value.to_bytes(width, order)
    return bytes(data)


def dimensions(data: bytearray, chance: random.Random, _: list[bytes]) -> bytes:
    """Another width and height where the format keeps them, checksums mended."""
    wide, high = (chance.choice((0, 1, 7, 300, 9_000, 9_999, 16_383, 65_535)) for _ in range(2))
    if data[:4] == b"\x89PNG":
        data[16:24] = struct.pack(">II", wide, high)
        return with_right_checksums(bytes(data))
    if data[:2] == b"\xff\xd8":
        frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
        data[frame + 5 : frame + 9] = struct.pack(">HH", high, wide)
    elif data[:2] == b"BM":
        data[18:26] = struct.pack("<II", wide, high)
    elif data[:3] == b"GIF":
        data[6:10] = struct.pack("<HH", wide, high)
    elif data[:4] == b"RIFF":
        position, both = (26, struct.pack("<HH", wide & 0x3FFF, high & 0x3FFF))
        if data[12:16] == b"VP8X":
            both = wide.to_bytes(3, "little") + high.to_bytes(3, "little")
            position = 24
        data[position : position + len(both)] = both
    return bytes(data)


def chunks_of(data: bytes) -> list[tuple[bytes, bytes]]:
    found, position = [], 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        found.append((data[position + 4 : position + 8], data[position + 8 :][:length]))
        position += 12 + length
    return found


def png_of(chunks: list[tuple[bytes, bytes]]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def with_right_checksums(data: bytes) -> bytes:
    return png_of(chunks_of(data))


def behind_checksums(data: bytearray, chance: random.Random, files: list[bytes]) -> bytes:
    """A PNG mutated inside its chunks, with right checksums, so that the decoder meets it."""
    chunks = chunks_of(bytes(data) if data[:4] == b"\x89PNG" else chance.choice(_pngs(files)))
    index = chance.randrange(len(chunks))
    kind, body = chunks[index]
    if body:
        chunks[index] = (kind, bit_flips(bytearray(body), chance, files))
    if chance.random() < 0.3:
        chunks.insert(index, chance.choice(chunks))
    return png_of(chunks)


def bomb(_: bytearray, chance: random.Random, files: list[bytes]) -> bytes:
    """Much from little: zlib streams in PNG chunks, huge empty pictures, thousands of scans."""
    kind = chance.choice(("text", "profile", "pixels", "scans", "webp"))
    if kind == "scans":
        data = files[3]
        last = data.rfind(b"\xff\xda")
        return data[:last] + data[last:-2] * chance.choice((30, 250, 20_000)) + data[-2:]
    if kind == "webp":
        return dimensions(bytearray(files[13 + chance.randrange(2)]), chance, files)
    zeros = zlib.compress(bytes(chance.choice((1 << 16, 1 << 24, 1 << 27))), 1)
    side = chance.choice((100, 9_990, 12_000))
    colour = chance.choice((0, 2, 3, 4, 6))
    header = struct.pack(">IIBBBBB", side, side, 8, colour, 0, 0, chance.randrange(2))
    extra = {"text": (b"zTXt", b"a\0\0" + zeros), "profile": (b"iCCP", b"a\0\0" + zeros)}
    middle = [extra[kind]] * chance.choice((1, 40)) if kind in extra else []
    palette = [(b"PLTE", bytes(30)), (b"tRNS", bytes(10))] if colour == 3 else []
    return png_of([(b"IHDR", header), *palette, *middle, (b"IDAT", zeros), (b"IEND", b"")])


def _pngs(files: list[bytes]) -> list[bytes]:
    return [data for data in files if data[:4] == b"\x89PNG"]


MUTATIONS = (
    bit_flips, bit_flips, truncation, splice, repetition, length_fields, length_fields, dimensions,
    behind_checksums, bomb,
)  # fmt: skip


def case(files: list[bytes], seed: int, number: int) -> tuple[str, bytes]:
    """The mutation's name and the file of one case."""
    chance = random.Random(f"{seed}/{number}")
    mutate = chance.choice(MUTATIONS)
    return mutate.__name__, mutate(bytearray(chance.choice(files)), chance, files)


def answer(data: bytes) -> str:
    """``pixels`` or the class of the ImageError, of both ways to read, or what else was raised."""
    from smidgen.runtime import ImageError, Preprocessing, fast_pixels

    found = []
    for decoder in ("auto", "reference"):
        try:
            pixels = fast_pixels.load(data, Preprocessing(32, 32), decoder=decoder)
            found.append("pixels" if pixels.shape == (32, 32, 3) else "shape")
        except ImageError as error:
            found.append(type(error).__name__ if "\n" not in str(error) else "two lines")
        except BaseException as error:
            return f"FOREIGN {type(error).__name__}: {error}"
    return found[0] if found[0] == found[1] else f"DIFFERENT {found[0]}, {found[1]}"


def child(seed: int, first: int, end: int) -> None:
    """Read the cases; a line of JSON before and after each."""
    import resource
    import warnings

    from smidgen.runtime.timing import peak_rss_bytes

    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    warnings.simplefilter("ignore")
    files = seeds()
    for number in range(first, end):
        kind, data = case(files, seed, number)
        print(json.dumps({"number": number, "kind": kind}), flush=True)
        line = {"number": number, "answer": answer(data), "peak": peak_rss_bytes()}
        print(json.dumps(line), flush=True)


def fuzz(seed: int, cases: int, *, seconds: float = 1e9) -> dict[str, Any]:
    """Run ``cases`` or for ``seconds``: counts of answers, and every crash, hang and oddity."""
    found: dict[str, Any] = {"cases": 0, "crashes": [], "hangs": [], "wrong": []}
    answers: Counter[str] = Counter()
    peak, longest, first, began = 0, 0.0, 0, time.monotonic()
    while first < cases and time.monotonic() - began < seconds:
        command = [sys.executable, __file__, "--child", str(seed), str(first), str(cases)]
        with subprocess.Popen(
            command, bufsize=0, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:  # no buffer: select() must see what is there
            pipe = process.stdout
            assert pipe is not None
            number, asked = first, time.monotonic()
            while time.monotonic() - began < seconds:
                is_starting = number == first and found["cases"] == first
                if not select.select([pipe], [], [], LIMIT_S * (4 if is_starting else 1))[0]:
                    found["hangs"].append(number)
                    break
                text = pipe.readline()
                if not text:
                    if number < cases - 1 or found["cases"] < cases:
                        found["crashes"].append(number)
                    break
                line = json.loads(text)
                number = line["number"]
                if "answer" not in line:
                    asked = time.monotonic()
                    continue
                longest = max(longest, time.monotonic() - asked)
                peak = max(peak, line["peak"])
                found["cases"] += 1
                answers[line["answer"].split()[0]] += 1
                if " " in line["answer"] or line["answer"] == "shape":
                    found["wrong"].append((number, line["answer"]))
            process.kill()
        first = number + 1
    found.update(answers=dict(answers), peak_mb=round(peak / 1e6), longest_s=round(longest, 2))
    return found


def main() -> int:
    """Run from the command line; 1 where a case was not as it should be."""
    parser = argparse.ArgumentParser(description="Fuzz what reads pictures.")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=int, nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child)
        return 0
    found = fuzz(arguments.seed, arguments.cases)
    print(json.dumps(found, indent=1))
    bad = found["crashes"] or found["hangs"] or found["wrong"] or found["peak_mb"] > 1000
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
