"""Hostile containers: zip and protobuf tricks, and files that want memory or time."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from typing import Any, Callable

import pytest

from smidgen.runtime import Bundle, BundleDamaged, BundleError, NotABundle
from smidgen.runtime.bundle import MAX_BYTES, payload_of, payload_sha256
from smidgen.runtime.container import MAX_TEXT_BYTES, read, texts_as_stored
from smidgen.runtime.schema import MAX_ITEMS

TFLITE = (Path(__file__).parent / "tiny-float32.tflite").read_bytes()
MakeBundle = Callable[..., Path]


def refused(data: bytes, path: Path) -> str:
    """What is said of a file that must be refused: a line, which is not long."""
    path.write_bytes(data)
    with pytest.raises(BundleError) as caught:
        Bundle.open(path)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 600 + len(str(path))
    return text


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "hostile"


@pytest.fixture
def parts(make_bundle: MakeBundle) -> dict[str, bytes]:
    """The texts of a sound .tflite Bundle of ``TFLITE``."""
    data = make_bundle("tflite").read_bytes()
    assert payload_of(data) == TFLITE
    return read(data).texts


def zipped(texts: dict[str, bytes], **changes: Any) -> bytes:
    """A file by Python's zipfile, which knows more kinds of archives than are allowed."""
    stream = io.BytesIO(TFLITE)
    with zipfile.ZipFile(stream, "a", changes.get("compression", zipfile.ZIP_STORED)) as archive:
        for name, content in texts.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = archive.compression
            entry.extra = changes.get("extra", b"")
            entry.comment = changes.get("entry_comment", b"")
            archive.writestr(entry, content)
        archive.comment = changes.get("comment", b"")
    return stream.getvalue()


def test_archives_of_zipfile_are_read(parts: dict[str, bytes], file: Path) -> None:
    file.write_bytes(zipped(parts))
    assert Bundle.open(file).manifest.labels == ("red", "grün", "blue")
    more = {**parts, "licence.txt": b"CC0"}  # what later versions may add
    file.write_bytes(zipped(more))
    assert Bundle.open(file).manifest.labels == ("red", "grün", "blue")


def test_the_writer_makes_what_zipfile_makes(parts: dict[str, bytes]) -> None:
    stream = io.BytesIO(TFLITE)
    with zipfile.ZipFile(stream, "a") as archive:
        for name, content in parts.items():
            entry = zipfile.ZipInfo(name)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, content)
    assert stream.getvalue() == TFLITE + texts_as_stored("tflite", parts, len(TFLITE))


def test_zip_tricks(parts: dict[str, bytes], file: Path) -> None:
    good = zipped(parts)
    end = len(good) - 22
    directory = struct.unpack_from("<I", good, end + 16)[0]
    begin = len(TFLITE)

    def patched(position: int, form: str, *values: int) -> bytes:
        changed = bytearray(good)
        struct.pack_into(form, changed, position, *values)
        return bytes(changed)

    central = 46 + len("labels.txt")
    moved = patched(end + 16, "<I", directory + 2)
    tricks = {
        "comment": zipped(parts, comment=b"x" * 10),
        "comment with another end": zipped(parts, comment=good[end:]),
        "entry comment": zipped(parts, entry_comment=b"x"),
        "extra field": zipped(parts, extra=b"\x99\x99\x02\x00hi"),
        "two disks": patched(end + 4, "<H", 1),
        "count on this disk": patched(end + 8, "<H", 1),
        "more files than there are": patched(end + 8, "<HH", 3, 3),
        "fewer files than there are": patched(end + 8, "<HH", 1, 1),
        "zip64 count": patched(end + 8, "<HH", 0xFFFF, 0xFFFF),
        "zip64 offset": patched(end + 16, "<I", 0xFFFFFFFF),
        "directory before its place": patched(end + 16, "<I", directory - 1),
        "directory size": patched(end + 12, "<I", 0xFFFFFFFF),
        "first file inside the model": patched(directory + 42, "<I", begin - 1),
        "first file at 0": patched(directory + 42, "<I", 0),
        "both entries, one file": patched(directory + central + 42, "<I", begin),
        "encrypted": patched(directory + 8, "<H", 1),
        "data descriptor": patched(directory + 8, "<H", 8),
        "deflated": zipped(parts, compression=zipfile.ZIP_DEFLATED),
        "CRC in the directory": patched(directory + 16, "<I", 5),
        "CRC in the file": patched(begin + 14, "<I", 5),
        "name in the file": patched(begin + 30, "<B", ord("L")),
        "size in the file": patched(begin + 22, "<I", 1),
        "sizes in the directory": patched(directory + 20, "<II", 1, 1),
        "name length": patched(directory + 28, "<H", 0xFFFF),
        "long file": patched(directory + 20, "<II", 0xFFFFFFF0, 0xFFFFFFF0),
        "bytes behind": good + b"\0",
        "bytes between": good[:directory] + b"\0\0" + moved[directory:],
        "no labels": zipped({"smidgen.json": parts["smidgen.json"]}),
        "no manifest": zipped({"labels.txt": parts["labels.txt"]}),
        "nothing": zipped({}),
        "other case": zipped({**parts, "Smidgen.json": b"{}"}),
        "many": zipped({**parts, **{str(n): b"" for n in range(15)}}),
    }  # fmt: skip
    for name, data in tricks.items():
        assert data != good, name
        refused(data, file)
    file.write_bytes(good)
    Bundle.open(file)


def test_files_that_overlap_are_refused(parts: dict[str, bytes], file: Path) -> None:
    """The quoted overlap of zip bombs: the second file inside the first one's content."""
    inner = texts_as_stored("tflite", {"smidgen.json": parts["smidgen.json"]}, 0)
    inner = inner[: inner.index(b"PK\1\2")]
    outer = struct.pack(
        "<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 0x21, zlib.crc32(inner), len(inner), len(inner), 9, 0
    )
    data = TFLITE + outer + b"outer.bin" + inner
    stored = texts_as_stored("tflite", {"outer.bin": inner}, len(TFLITE))
    one = stored[stored.rindex(b"PK\1\2") : -22]
    two = texts_as_stored("tflite", {"smidgen.json": parts["smidgen.json"]}, len(TFLITE) + 39)
    both = one + two[two.rindex(b"PK\1\2") : -22]
    data += both + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 2, 2, len(both), len(data), 0)
    assert "one behind the other" in refused(data, file)


def test_protobuf_tricks(make_bundle: MakeBundle, file: Path) -> None:
    good = make_bundle("onnx").read_bytes()
    size = len(payload_of(good))
    tricks = {
        "second graph": good + b"\x3a\x00",
        "second graph, overlong tag": good + b"\xba\x00\x00",
        "graph behind 32 bits": good + b"\xba\x80\x80\x80\x10\x00",
        "field number of 30 bits": good + b"\x80\x80\x80\x80\x10\x00",
        "group": good + b"\x73\x74",
        "end of a group": good + b"\x74",
        "wire type 6": good + b"\x76\x00",
        "manifest twice": good + b"\x72\x14\x0a\x10smidgen.manifest\x12\x00",
        "manifest in other case": good + b"\x72\x14\x0a\x10Smidgen.manifest\x12\x00",
        "no ir_version first": good[2:] + good[:2],
        "metadata as a group": good[:size] + b"\x73" + good[size + 1 :],
        "entry of many fields": good + b"\x72\x22" + b"\x0a\x00" * 17,
        "many fields": good + b"\x18\x01" * 10_001,
        "ir_version of 11 bytes": b"\x08" + b"\x80" * 10 + b"\x01" + good[2:],
    }
    for name, data in tricks.items():
        assert refused(data, file), name
    for harmless in (good[:2] + good[size:] + good[2:size], good + b"\x72\x04\x0a\x02\xff\xfe"):
        file.write_bytes(harmless)
        assert Bundle.open(file).manifest.name == "tiny"


def with_manifest(text: bytes, kind: Any = "tflite") -> bytes:
    texts = {"labels.txt": b"", "smidgen.json": text}
    return TFLITE + texts_as_stored(kind, texts, len(TFLITE))


HUNGRY: dict[str, Callable[[], bytes]] = {
    "100 MB": lambda: b'{"name":"' + b"x" * 100_000_000 + b'"}',
    "depth": lambda: b"[" * 3_000_000,
    "depth of tables": lambda: b'{"a":' * 800_000,
    "empty lists": lambda: b"[" + b"[]," * 1_390_000 + b"[]]",
    "empty tables": lambda: b"[" + b"{}," * 1_390_000 + b"{}]",
    "one number": lambda: b"[" + b"7" * 4_000_000 + b"]",
    "labels": lambda: manifest_with("labels", ["x"] * 1_000_000),
    "shape": lambda: manifest_with("input", {**INPUT, "shape": [1] * 1_000_000}),
    "versions": lambda: manifest_with("minimum_runtime", {str(n): "" for n in range(300_000)}),
    "unknown key": lambda: manifest_with("x" * 3_000_000, 1),
    "key with escapes": lambda: manifest_with("\x1b[2J\n" * 1000, 1),
    "version key": lambda: manifest_with("minimum_runtime", {"\x1b\n" * 100_000: 5}),
    "choice": lambda: manifest_with("scheme", ["int8"] * 800_000),
    "backslashes": lambda: b'{"name":"' + b"\\\\" * 2_000_000 + b'"}',
}
INPUT = {"name": "i", "shape": [1], "dtype": "uint8", "layout": "NHWC", "low": 0, "high": 1}
OUTPUT = {"name": "o", "shape": [1, 2], "dtype": "uint8", "layout": "NC", "low": 0, "high": 1}
ORIGIN = {"created_utc": "", "backbone": "", "source": "", "recipe_toml": "",
          "weights_sha256": "", "data_sha256": ""}  # fmt: skip
MANIFEST: dict[str, Any] = {
    "name": "n", "model_format": "tflite", "scheme": "int8", "labels": ["a", "b"],
    "preprocessing": {"width": 8, "height": 8}, "input": INPUT, "output": OUTPUT,
    "provenance": ORIGIN, "payload_sha256": "",
}  # fmt: skip


def manifest_with(key: str, value: Any) -> bytes:
    return json.dumps({**MANIFEST, key: value}, ensure_ascii=False).encode()


@pytest.mark.slow
@pytest.mark.parametrize("name", HUNGRY)
def test_manifests_that_want_memory_or_time(name: str, file: Path) -> None:
    file.write_bytes(with_manifest(HUNGRY[name]()))
    code = (
        "import sys, time\n"
        "from smidgen.runtime import Bundle, BundleError\n"
        "from smidgen.runtime.timing import peak_rss_bytes\n"
        "begin = time.process_time()\n"
        "try:\n"
        "    Bundle.open(sys.argv[1])\n"
        "except BundleError as error:\n"
        "    text = str(error)\n"
        "    assert text.isprintable() and len(text) < 1500, text[:3000]\n"
        "print(time.process_time() - begin, peak_rss_bytes())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    seconds, peak_bytes = map(float, done.stdout.split())
    assert seconds < 10  # of this process alone
    assert peak_bytes < 1e9


def test_long_lists_are_refused(file: Path) -> None:
    text = refused(with_manifest(manifest_with("labels", ["x"] * (MAX_ITEMS + 1))), file)
    assert f"at most {MAX_ITEMS}" in text
    text = refused(with_manifest(b" " * (MAX_TEXT_BYTES + 1)), file)
    assert f"at most {MAX_TEXT_BYTES}" in text


@pytest.mark.parametrize(
    "label",
    ["x" * 1001, "a\nb", "a\tb", "\x1b[31mred", "bell\x07", "\x7f", "\x9b31m", "\u2028", "\ud800"],
)
def test_labels_that_steer_a_terminal_are_refused(
    make_bundle: MakeBundle, label: str, tmp_path: Path
) -> None:
    """Escaped in JSON or as they are; of both formats, wherever a label is shown."""
    del tmp_path
    for kind in ("tflite", "onnx"):
        path = make_bundle(kind)
        data = path.read_bytes()
        payload, texts = payload_of(data), dict(read(data).texts)
        key = "smidgen.json" if kind == "tflite" else "smidgen.manifest"
        for ascii_only in (True, False):
            mapping = json.loads(texts[key])
            mapping["labels"][0] = label
            text = json.dumps(mapping, ensure_ascii=ascii_only)
            texts[key] = text.encode("utf-8", "surrogatepass")
            form: Any = kind
            path.write_bytes(payload + texts_as_stored(form, texts, len(payload)))
            with pytest.raises(BundleError) as caught:
                Bundle.open(path)
            assert str(caught.value).isprintable()


@pytest.mark.parametrize("field", ["name", "payload_sha256", "input", "minimum_runtime"])
def test_texts_of_messages_are_one_line(file: Path, field: str) -> None:
    """Found by the fuzzer: a hash with a line break, in the message that says it is wrong."""
    changed = {"input": {**INPUT, "name": "a\nb"}, "minimum_runtime": {"a": "b\nc"}}
    text = manifest_with(field, changed.get(field, "a\nb"))
    assert "control characters" in refused(with_manifest(text), file)


def test_a_text_with_backslashes_is_no_control_character(
    make_bundle: MakeBundle,
) -> None:
    from dataclasses import replace

    origin = Bundle.open(make_bundle("onnx")).manifest.provenance
    recipe = 'label = "\\u001b"\n\tback = "\\\\u001b"\n'
    path = make_bundle("onnx", provenance=replace(origin, recipe_toml=recipe))
    assert Bundle.open(path).manifest.provenance.recipe_toml == recipe
    path = make_bundle("onnx", provenance=replace(origin, source="\x1b[2J"))
    with pytest.raises(NotABundle, match="control characters"):
        Bundle.open(path)


def test_a_file_that_is_too_large_is_not_read(file: Path) -> None:
    with open(file, "wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    tracemalloc.start()
    assert f"at most {MAX_BYTES}" in refused_path(file)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def refused_path(file: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.open(file)
    return str(caught.value)


def test_a_large_file_without_end_takes_no_time(file: Path) -> None:
    """Half a gigabyte of two-byte fields: they are counted, not collected."""
    begin = time.process_time()
    with open(file, "wb") as stream:
        stream.write(b"\x08\x08" + b"\x18\x01" * 1_000_000)
        stream.truncate(MAX_BYTES)
    assert "more than 10000 fields" in refused_path(file)
    assert time.process_time() - begin < 5


def test_foreign_entries_are_not_kept(make_bundle: MakeBundle) -> None:
    path = make_bundle("onnx")
    entry = b"\x0a\x01k\x12" + b"\x80\x80\x40" + b"v" * (1 << 20)
    data = path.read_bytes() + b"\x72" + b"\x87\x80\x40" + entry
    assert read(data).texts["k"] == b""
    assert payload_sha256(data) == payload_sha256(path.read_bytes())


def test_a_path_cannot_steer_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[2J\nb.tflite"
    path.write_bytes(b"")
    assert refused_path(path).isprintable()


def test_lying_sizes_never_allocate(file: Path) -> None:
    for tail in (b"\x3a\xff\xff\xff\xff\x0f", b"\x72\xff\xff\xff\xff\xff\xff\xff\xff\x7f"):
        tracemalloc.start()
        with pytest.raises(BundleDamaged):
            read(b"\x08\x08" + tail)
        assert tracemalloc.get_traced_memory()[1] < 100_000
        tracemalloc.stop()
    refused(b"\x08\x08\x3a\xff\xff\xff\xff\x0f", file)
