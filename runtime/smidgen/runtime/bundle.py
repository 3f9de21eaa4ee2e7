"""The Bundle: one model file that carries its Manifest, opened with its bytes checked.

Format, in short:

- ``.tflite``: a TFLite flatbuffer (``TFL3`` at byte 4) with a zip archive appended, which holds
  ``labels.txt`` (one label a line, UTF-8) and ``smidgen.json``, both stored without compression.
  The *payload* is every byte before the archive.
- ``.onnx``: a protobuf ``ModelProto`` whose ``metadata_props`` (field 14) has the keys
  ``smidgen.manifest`` and ``smidgen.manifest_sha256``. The *payload* is the
  concatenation of the top-level records whose field number is not 14, tags included, in file
  order.

``Manifest.payload_sha256`` is the hash of the payload. The readers here take any bytes: every
length is checked before it is used, and whatever is wrong ends in one ``BundleError``.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Optional, Union

from smidgen.runtime.errors import BundleDamaged, NotABundle
from smidgen.runtime.manifest import (
    LABELS_FILE,
    MANIFEST_FILE,
    ONNX_MANIFEST_HASH_KEY,
    ONNX_MANIFEST_KEY,
    Manifest,
)

MAX_BYTES = 1 << 31
"""Neither flatbuffers nor protobuf messages may be larger than 2 GiB."""

_IR_VERSION_FIELD = 1
_GRAPH_FIELD = 7
_METADATA_FIELD = 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_BAD_ZIP = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    struct.error,
    EOFError,
    KeyError,
    IndexError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
)
_NO_MANIFEST = (
    "it is a model but not a smidgen Bundle (or was cut short): "
    "export it with `smidgen export`, or copy it again"
)


@dataclass(frozen=True)
class Bundle:
    """A model file in memory whose manifest was read and whose payload hash is right."""

    path: Path
    manifest: Manifest
    data: bytes = field(repr=False)

    @functools.cached_property
    def file_sha256(self) -> str:
        """SHA-256 of the whole file; made when it is asked for, since answers do not need it."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def file_bytes(self) -> int:
        """Size of the file."""
        return len(self.data)

    @classmethod
    def open(cls, path: Union[str, os.PathLike[str]]) -> Bundle:
        """Read and check the whole file.

        Raises:
            NotABundle: no such file, another kind of file, or a model without a manifest.
            BundleDamaged: cut short, or changed after it was written.
        """
        file = Path(path)
        data = _read(file)
        try:
            manifest = _checked_manifest(data)
        except NotABundle as error:
            raise NotABundle(f"{file}: {error}") from error
        except BundleDamaged as error:
            raise BundleDamaged(f"{file}: {error}") from error
        return cls(file, manifest, data)


def model_format(data: bytes) -> str:
    """``"tflite"`` or ``"onnx"``, from the first bytes. Raises NotABundle for anything else."""
    if data[4:8] == b"TFL3":
        return "tflite"
    if _looks_like_onnx(data):
        return "onnx"
    found = f"{len(data)} bytes that start with {data[:8]!r}" if data else "an empty file"
    raise NotABundle(f"{found}: expected a .tflite or .onnx file made by `smidgen export`")


def payload_of(data: bytes) -> bytes:
    """The part of a model file that its manifest vouches for (see the top of this module).

    Works on models that have no manifest yet. Raises NotABundle or BundleDamaged.
    """
    return b"".join(_payload_pieces(data))


def payload_sha256(data: bytes) -> str:
    """SHA-256 of ``payload_of(data)``, without copying it. Raises NotABundle or BundleDamaged."""
    digest = hashlib.sha256()
    for piece in _payload_pieces(data):
        digest.update(piece)
    return digest.hexdigest()


def onnx_properties(manifest: Manifest) -> dict[str, str]:
    """The ``metadata_props`` entries which make an ONNX model a Bundle."""
    text = manifest.to_json()
    return {
        ONNX_MANIFEST_KEY: text,
        ONNX_MANIFEST_HASH_KEY: hashlib.sha256(text.encode("utf-8")).hexdigest(),
    }


class _Record(NamedTuple):
    """One field of a protobuf message: positions in the data; ``value`` is set for varints."""

    number: int
    wire: int
    start: int
    body: int
    end: int
    value: int


def _read(file: Path) -> bytes:
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise NotABundle(f"{file}: not a file; expected a .tflite or .onnx Bundle")
        if status.st_size > MAX_BYTES:
            raise NotABundle(f"{file}: {status.st_size} bytes; a Bundle has at most {MAX_BYTES}")
        return file.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NotABundle(f"{file}: cannot be opened ({reason}); check the path") from error


def _checked_manifest(data: bytes) -> Manifest:
    kind = model_format(data)
    if kind == "tflite":
        files = _zip_files(data)
        manifest = _parse_manifest(files.get(MANIFEST_FILE))
        if files.get(LABELS_FILE) is None:
            raise BundleDamaged(f"{LABELS_FILE} is missing; export the model again")
        labels = _text(files[LABELS_FILE], LABELS_FILE).rstrip("\n").split("\n")
        if labels != list(manifest.labels):
            raise BundleDamaged(
                f"{LABELS_FILE} ({len(labels)} labels) differs from the manifest's "
                f"{len(manifest.labels)} labels; export the model again"
            )
    else:
        text = _onnx_property(data, ONNX_MANIFEST_KEY)
        manifest = _parse_manifest(text)
        expected = hashlib.sha256(text or b"").hexdigest().encode("ascii")
        if _onnx_property(data, ONNX_MANIFEST_HASH_KEY) != expected:
            raise BundleDamaged("the manifest was changed after it was written; copy it again")
    if manifest.model_format != kind:
        raise NotABundle(
            f"the manifest is for a .{manifest.model_format} file, this one is .{kind}; "
            "export the model again"
        )
    found = payload_sha256(data)
    if found != manifest.payload_sha256:
        raise BundleDamaged(
            f"the model was changed after it was written (SHA-256 {found[:12]}..., manifest "
            f"{manifest.payload_sha256[:12]}...); copy or export it again"
        )
    return manifest


def _parse_manifest(content: Optional[bytes]) -> Manifest:
    if content is None:
        raise NotABundle(_NO_MANIFEST)
    return Manifest.from_json(_text(content, "the manifest"))


def _text(content: bytes, what: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BundleDamaged(f"{what} is not UTF-8 text; copy or export the file again") from error


def _payload_pieces(data: bytes) -> Iterator[memoryview]:
    view = memoryview(data)
    if model_format(data) == "tflite":
        yield view[: _zip_start(data)]
        return
    for record in _onnx_records(data):
        if record.number != _METADATA_FIELD:
            yield view[record.start : record.end]


# --- .tflite: the zip archive behind the flatbuffer -------------------------------------------


def _zip_start(data: bytes) -> int:
    """Where the appended archive begins: ``len(data)`` where there is none."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return len(data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            starts = [info.header_offset for info in archive.infolist()]
    except _BAD_ZIP as error:
        raise _damaged_zip(error) from error
    start = min(starts, default=len(data))
    if not 8 <= start <= len(data):
        raise _damaged_zip(ValueError(f"it begins at byte {start}"))
    return start


def _zip_files(data: bytes) -> dict[str, bytes]:
    """The manifest and the label file of the appended archive, CRC checked; {} without archive."""
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return {}
    files: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                if info.filename not in (MANIFEST_FILE, LABELS_FILE):
                    continue
                if info.filename in files:
                    raise zipfile.BadZipFile(f"{info.filename} is there twice")
                stored = info.compress_type == zipfile.ZIP_STORED
                if not stored or info.file_size != info.compress_size:
                    raise zipfile.BadZipFile(f"{info.filename} is not stored plainly")
                files[info.filename] = archive.read(info)
    except _BAD_ZIP as error:
        raise _damaged_zip(error) from error
    return files


def _damaged_zip(error: BaseException) -> BundleDamaged:
    return BundleDamaged(
        f"the archive behind the model is damaged ({error}); copy or export the file again"
    )


# --- .onnx: the top level of a protobuf message -------------------------------------------------


def _looks_like_onnx(data: bytes) -> bool:
    """ModelProto starts with ``ir_version`` (field 1, a varint), which is a small number."""
    try:
        first = next(_records(data, 0, len(data)), None)
    except BundleDamaged:
        return False
    return first is not None and first.number == _IR_VERSION_FIELD and 1 <= first.value < 256


def _onnx_records(data: bytes) -> list[_Record]:
    records = list(_records(data, 0, len(data)))
    graphs = [record for record in records if record.number == _GRAPH_FIELD]
    if len(graphs) != 1 or graphs[0].wire != _BYTES:
        raise BundleDamaged(f"{len(graphs)} graphs in the ONNX file, expected 1; copy it again")
    return records


def _onnx_property(data: bytes, key: str) -> Optional[bytes]:
    """The ``metadata_props`` value of ``key``, None where there is none."""
    found: Optional[bytes] = None
    for record in _onnx_records(data):
        if record.number != _METADATA_FIELD:
            continue
        if record.wire != _BYTES:
            raise BundleDamaged("a metadata entry of the ONNX file is malformed; copy it again")
        entry = {
            part.number: data[part.body : part.end]
            for part in _records(data, record.body, record.end)
            if part.wire == _BYTES
        }
        if entry.get(1) == key.encode("utf-8"):
            if found is not None:
                raise BundleDamaged(f"the metadata entry {key} is there twice; export it again")
            found = entry.get(2, b"")
    return found


def _records(data: bytes, position: int, end: int) -> Iterator[_Record]:
    """The fields of the protobuf message in ``data[position:end]``. Raises BundleDamaged."""
    while position < end:
        start = position
        tag, position = _varint(data, position, end)
        number, wire = tag >> 3, tag & 7
        value = 0
        body = position
        if wire == _VARINT:
            value, position = _varint(data, position, end)
        elif wire == _BYTES:
            length, body = _varint(data, position, end)
            position = body + length
        elif wire in (_FIXED64, _FIXED32):
            position += 8 if wire == _FIXED64 else 4
        if number == 0 or wire not in (_VARINT, _FIXED64, _BYTES, _FIXED32):
            raise BundleDamaged(f"no protobuf field at byte {start}; copy or export the file again")
        if position > end:
            raise BundleDamaged(
                f"cut short: a field at byte {start} needs {position - end} more bytes; "
                "copy or export the file again"
            )
        yield _Record(number, wire, start, body, position, value)


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """A base-128 number of at most 10 bytes and the position behind it."""
    value = 0
    for index in range(10):
        if position + index >= end:
            raise BundleDamaged(f"cut short inside a number at byte {position}; copy it again")
        byte = data[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise BundleDamaged(f"no number at byte {position}; copy or export the file again")
