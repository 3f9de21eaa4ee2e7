"""Bundles: exact bytes, and every kind of hostile file ends in one BundleError of one line."""

from __future__ import annotations

import hashlib
import os
import random
import struct
import zipfile
from pathlib import Path
from typing import Any, Callable

import pytest

from smidgen.runtime import Bundle, BundleDamaged, BundleError, NotABundle
from smidgen.runtime.bundle import payload_of, payload_sha256

HERE = Path(__file__).parent
TFLITE = (HERE / "tiny-float32.tflite").read_bytes()
MakeBundle = Callable[..., Path]
FORMATS = ("tflite", "onnx")


def refused(path: Path) -> BundleError:
    """The error of opening ``path``, which must be a BundleError of one line that names it."""
    with pytest.raises(BundleError) as caught:
        Bundle.open(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return caught.value


@pytest.mark.parametrize("model_format", FORMATS)
def test_a_bundle_opens(make_bundle: MakeBundle, model_format: str) -> None:
    path = make_bundle(model_format)
    bundle = Bundle.open(str(path))
    data = path.read_bytes()
    assert bundle.manifest.labels == ("red", "grün", "blue")
    assert bundle.file_bytes == len(data)
    assert "file_sha256" not in vars(bundle)  # a second pass over the file, which answers can spare
    assert bundle.file_sha256 == hashlib.sha256(data).hexdigest()
    assert payload_sha256(data) == bundle.manifest.payload_sha256
    assert "data=" not in repr(bundle)


def test_the_payload_is_the_model_before_packing(
    make_bundle: MakeBundle, onnx_model: bytes
) -> None:
    for model_format, model in (("tflite", TFLITE), ("onnx", onnx_model)):
        data = make_bundle(model_format).read_bytes()
        assert payload_of(model) == model
        assert payload_of(data) == model
        assert len(data) > len(model)


def test_onnx_payload_leaves_out_metadata_wherever_it_stands() -> None:
    ir = b"\x08\x08"
    graph = b"\x3a\x03\x0a\x01g"
    metadata = b"\x72\x06\x0a\x01k\x12\x01v"
    fixed = b"\xa1\x06" + b"12345678" + b"\xa5\x06" + b"1234"  # fields 100, 64 and 32 bits
    data = ir + metadata + graph + metadata + fixed
    assert payload_of(data) == ir + graph + fixed
    assert payload_sha256(data) == hashlib.sha256(ir + graph + fixed).hexdigest()


def test_a_model_without_manifest_says_how_to_get_one(tmp_path: Path, onnx_model: bytes) -> None:
    for name, data in (("plain.tflite", TFLITE), ("plain.onnx", onnx_model)):
        path = tmp_path / name
        path.write_bytes(data)
        error = refused(path)
        assert isinstance(error, NotABundle)
        assert "a model but not a smidgen Bundle" in str(error)
        assert "smidgen export" in str(error)


def test_things_that_are_no_model(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    contents = {
        "empty": b"",
        "short": b"TFL",
        "text": b"# a recipe\n",
        "jpeg": b"\xff\xd8\xff\xe0" + bytes(40),
        "zip": b"PK\x05\x06" + bytes(18),
        "huge varint": b"\xff" * 32,
        "huge ir_version": b"\x08" + b"\xff" * 9 + b"\x01",
    }
    for name, data in contents.items():
        path = tmp_path / name
        path.write_bytes(data)
        assert isinstance(refused(path), NotABundle), name
    for path in (tmp_path, tmp_path / "absent.tflite", pipe):
        assert isinstance(refused(path), NotABundle)


@pytest.mark.parametrize(
    "tail",
    [
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a graph of 2^64 - 1 bytes
        b"\x3a\xff\xff\xff\xff\x0f",  # of 4 GiB
        b"\x3a\x05ab",  # longer than the file
        b"\x3a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",  # an 11-byte number
        b"\x3a",  # no length
        b"\x39\x00",  # 8 bytes, of which 1 is there
        b"\x3b",  # a group
        b"\x02\x00",  # field 0
        b"",  # no graph
        b"\x3a\x00\x3a\x00",  # two graphs
        b"\x38\x01",  # a graph that is a number
        b"\x3a\x00\x70\x01",  # metadata that is a number
        b"\x3a\x00\x72\x02\x0a\x7f",  # an entry longer than its record
    ],
)
def test_lying_onnx_files_are_damaged(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "lying.onnx"
    path.write_bytes(b"\x08\x08" + tail)
    assert isinstance(refused(path), BundleDamaged)


@pytest.mark.parametrize("model_format", FORMATS)
def test_cut_anywhere_is_refused(make_bundle: MakeBundle, model_format: str) -> None:
    path = make_bundle(model_format)
    data = path.read_bytes()
    for length in [*range(0, len(data), 17), len(data) // 2, *range(len(data) - 30, len(data))]:
        path.write_bytes(data[:length])
        refused(path)


@pytest.mark.parametrize("model_format", FORMATS)
def test_one_flipped_byte_of_the_model_is_found(make_bundle: MakeBundle, model_format: str) -> None:
    path = make_bundle(model_format)
    data = path.read_bytes()
    size = len(payload_of(data))
    for position in range(16, size, 7):
        changed = bytearray(data)
        changed[position] ^= 0x10
        path.write_bytes(bytes(changed))
        refused(path)


@pytest.mark.parametrize("model_format", FORMATS)
def test_flips_in_the_manifest_never_raise_anything_else(
    make_bundle: MakeBundle, model_format: str
) -> None:
    path = make_bundle(model_format)
    data = path.read_bytes()
    opened = 0
    for position in range(len(payload_of(data)), len(data), 3):
        changed = bytearray(data)
        changed[position] ^= 0x41
        path.write_bytes(bytes(changed))
        try:
            Bundle.open(path)
        except BundleError as error:
            assert "\n" not in str(error)
        else:
            opened += 1  # a time stamp in the directory of the zip archive
    assert opened == 0 if model_format == "onnx" else opened < 100


def test_random_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    generator = random.Random(3)
    path = tmp_path / "noise"
    for count in range(300):
        start = (b"", b"\x08\x08", b"\x08\x08\x3a\x01g", b"\x1c\0\0\0TFL3")[count % 4]
        end = b"" if count % 3 else b"PK\x05\x06" + generator.randbytes(18)
        path.write_bytes(start + generator.randbytes(generator.randrange(200)) + end)
        refused(path)


def test_labels_must_agree_with_the_manifest(
    tmp_path: Path, make_manifest: Callable[..., Any], pack_tflite: Callable[..., bytes]
) -> None:
    manifest = make_manifest("tflite", "float32", payload_sha256(TFLITE))
    path = tmp_path / "labels.tflite"
    for labels in (("red", "blue", "grün"), ("red", "grün"), ("red", "grün", "blue", "x"), ()):
        path.write_bytes(pack_tflite(TFLITE, manifest, labels))
        assert "labels.txt" in str(refused(path))
    path.write_bytes(pack_tflite(TFLITE, manifest))
    Bundle.open(path)


def test_archives_with_lies_are_refused(
    tmp_path: Path, make_manifest: Callable[..., Any], pack_tflite: Callable[..., bytes]
) -> None:
    manifest = make_manifest("tflite", "float32", payload_sha256(TFLITE))
    path = tmp_path / "lies.tflite"
    path.write_bytes(pack_tflite(TFLITE, manifest, None, zipfile.ZIP_DEFLATED))
    assert "not stored plainly" in str(refused(path))

    good = pack_tflite(TFLITE, manifest)
    directory = good.rindex(b"PK\x01\x02")
    for offset, value in ((20, 2**31), (24, 2**31), (20, 1), (24, 1), (42, 2**31), (42, 0)):
        lying = bytearray(good)
        lying[directory + offset : directory + offset + 4] = struct.pack("<I", value)
        path.write_bytes(bytes(lying))
        refused(path)

    path.write_bytes(good)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("smidgen.json", manifest.to_json())
    assert "twice" in str(refused(path))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "[" * 100_000, '{"format_version": 99}', '{"name": 1e999}', "\udc80", "null"],
)
def test_manifests_that_are_none(
    tmp_path: Path, pack_onnx: Callable[..., bytes], onnx_model: bytes, text: str
) -> None:
    class Written:
        @staticmethod
        def to_json() -> Any:
            class Text(str):
                def encode(self, *_: Any) -> bytes:  # type: ignore[override]
                    return str(self).encode("utf-8", "surrogateescape")

            return Text(text)

    path = tmp_path / "bad.onnx"
    path.write_bytes(pack_onnx(onnx_model, Written()))
    refused(path)


def test_a_manifest_without_an_output_shape_is_refused(
    tmp_path: Path,
    make_manifest: Callable[..., Any],
    pack_onnx: Callable[..., bytes],
    onnx_model: bytes,
) -> None:
    manifest = make_manifest("onnx", "float32", payload_sha256(onnx_model))
    text = manifest.to_json().replace('"shape":[-1,3]', '"shape":[]')
    assert text != manifest.to_json()
    path = tmp_path / "bad.onnx"
    entry = type("Written", (), {"to_json": staticmethod(lambda: text)})
    path.write_bytes(pack_onnx(onnx_model, entry))
    refused(path)


def test_a_manifest_of_the_other_format_is_refused(
    tmp_path: Path, make_manifest: Callable[..., Any], pack_tflite: Callable[..., bytes]
) -> None:
    manifest = make_manifest("onnx", "float32", payload_sha256(TFLITE))
    path = tmp_path / "other.tflite"
    path.write_bytes(pack_tflite(TFLITE, manifest))
    assert "the manifest is for a .onnx file, this one is .tflite" in str(refused(path))
