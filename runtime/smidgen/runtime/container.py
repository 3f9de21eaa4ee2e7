"""Where the parts of a model file are: the model, and the texts that smidgen keeps beside it.

- ``.tflite``: a flatbuffer (``TFL3`` at byte 4), and behind it a zip archive whose files are the
  texts. Only the plainest archive is read: every file stored (not compressed) once, file behind
  file without a gap, no comment, no extra field, no encryption, no zip64, CRC right.
- ``.onnx``: a protobuf ``ModelProto``; the texts are entries of ``metadata_props`` (field 14).

Any bytes may be read: every length is checked before it is used, counts are limited, and whatever
is wrong ends in one NotABundle or BundleDamaged. Sources: PKWARE's APPNOTE.TXT (zip), the protobuf
encoding, ``onnx.proto``.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from smidgen.runtime.engine_checks import ModelFormat
from smidgen.runtime.errors import BundleDamaged, NotABundle

MAX_TEXT_BYTES = 1 << 22
"""A manifest of 20,000 labels takes 1 MB; parsing takes up to 60 times the bytes of a text."""

_PREFIXES = {"tflite": ("smidgen.", "labels.txt"), "onnx": ("smidgen.",)}
_MAX_FILES = 16
_MAX_FIELDS = 10_000
_MAX_ENTRY_FIELDS = 16
_MAX_FIELD_NUMBER = (1 << 29) - 1
_IR_VERSION_FIELD, _GRAPH_FIELD, _METADATA_FIELD = 1, 7, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_FIRST_DATE = 0x21  # 1980-01-01, the zip format's first
_UTF8_FLAG = 0x800


@dataclass(frozen=True)
class Container:
    """The parts of a model file.

    ``payload``: begin and end of each part that is the model, in order. ``texts``: by file name or
    key, in order; the content of those that are not smidgen's is left empty.
    """

    model_format: ModelFormat
    payload: tuple[tuple[int, int], ...]
    texts: dict[str, bytes]


def model_format(data: bytes) -> ModelFormat:
    """``"tflite"`` or ``"onnx"``, from the first bytes. Raises NotABundle for anything else."""
    if data[4:8] == b"TFL3":
        return "tflite"
    if _looks_like_onnx(data):
        return "onnx"
    found = f"{len(data)} bytes that start with {data[:8]!r}" if data else "an empty file"
    raise NotABundle(f"{found}: expected a .tflite or .onnx file made by `smidgen export`")


def read(data: bytes) -> Container:
    """The parts of a model file; no texts where it has none. Raises NotABundle or BundleDamaged."""
    return _read_tflite(data) if model_format(data) == "tflite" else _read_onnx(data)


def texts_as_stored(kind: ModelFormat, texts: Mapping[str, bytes], offset: int) -> bytes:
    """What stands behind a payload of ``offset`` bytes: equal texts give equal bytes."""
    if kind == "tflite":
        return _archive(texts, offset)
    return b"".join(
        _field(_METADATA_FIELD, _field(1, key.encode("utf-8")) + _field(2, value))
        for key, value in texts.items()
    )


def _keep(texts: dict[str, bytes], kind: str, name: bytes, content: memoryview) -> None:
    """Add a text. Raises BundleDamaged for one of smidgen's that is there twice, or too long."""
    key = name.decode("utf-8", "backslashreplace")
    if not key.lower().startswith(_PREFIXES[kind]):
        texts[key] = b""
        return
    if key in texts or key != key.lower():  # other readers may not tell the cases apart
        raise BundleDamaged(f"{key[:60]!r} is there twice; copy or export the file again")
    if len(content) > MAX_TEXT_BYTES:
        raise BundleDamaged(
            f"{key[:60]!r} has {len(content)} bytes, at most {MAX_TEXT_BYTES} are allowed; "
            "export the model again"
        )
    texts[key] = bytes(content)


# --- .tflite: the zip archive behind the flatbuffer -------------------------------------------


def _read_tflite(data: bytes) -> Container:
    texts: dict[str, bytes] = {}
    tail = len(data) - _END.size
    if tail < 8 or data[tail : tail + 4] != b"PK\5\6":
        return Container("tflite", ((0, len(data)),), texts)
    _, disk, first, here, count, size, directory, comment = _END.unpack_from(data, tail)
    if (disk, first, comment) != (0, 0, 0) or here != count or directory + size != tail:
        raise _damaged_zip("its end record does not fit")
    if count > _MAX_FILES:
        raise _damaged_zip(f"{count} files, at most {_MAX_FILES} are allowed")
    view, position, start, behind = memoryview(data), directory, directory, -1
    for _ in range(count):
        name, begin, end, position = _zip_file(data, position, tail)
        start = begin if behind < 0 else start
        if behind not in (-1, begin) or not 8 <= begin <= end <= directory:
            raise _damaged_zip("its files do not stand one behind the other")
        behind = end
        _keep(texts, "tflite", name, view[begin + _LOCAL.size + len(name) : end])
    if position != tail or behind not in (-1, directory):
        raise _damaged_zip("there are bytes between its parts")
    return Container("tflite", ((0, start),), texts)


def _zip_file(data: bytes, position: int, tail: int) -> tuple[bytes, int, int, int]:
    """Of the directory's entry at ``position``: name, begin, end, and where the next one begins."""
    if position + _CENTRAL.size > tail:
        raise _damaged_zip("its directory is cut short")
    fields = _CENTRAL.unpack_from(data, position)
    _, flags, method, _, _, crc, stored, size, name_bytes = fields[2:11]
    behind = position + _CENTRAL.size + name_bytes
    name = data[position + _CENTRAL.size : behind]
    if method != 0 or stored != size or flags & ~_UTF8_FLAG:
        raise _damaged_zip(f"{name[:60]!r} is not stored plainly")
    local = _LOCAL.pack(b"PK\3\4", *fields[2:11], 0) + name
    begin = fields[-1]
    end = begin + len(local) + size
    if fields[0] != b"PK\1\2" or fields[11:14] != (0, 0, 0) or behind > tail:
        raise _damaged_zip(f"its directory is wrong at byte {position}")
    if end > tail or data[begin : begin + len(local)] != local:
        raise _damaged_zip(f"directory and file differ for {name[:60]!r}")
    if zlib.crc32(memoryview(data)[begin + len(local) : end]) != crc:
        raise _damaged_zip(f"wrong CRC of {name[:60]!r}")
    return name, begin, end, behind


def _archive(texts: Mapping[str, bytes], offset: int) -> bytes:
    """The zip archive for a file in which it begins at byte ``offset``."""
    files, entries = b"", b""
    for key, content in texts.items():
        name, size = key.encode("utf-8"), len(content)
        fields = (20, 0, 0, 0, _FIRST_DATE, zlib.crc32(content), size, size, len(name), 0)
        place = (0, 0, 0, 0o644 << 16, offset + len(files))
        entries += _CENTRAL.pack(b"PK\1\2", 3 << 8 | 20, *fields, *place) + name
        files += _LOCAL.pack(b"PK\3\4", *fields) + name + content
    count, directory = len(texts), offset + len(files)
    end = _END.pack(b"PK\5\6", 0, 0, count, count, len(entries), directory, 0)
    return files + entries + end


def _damaged_zip(what: str) -> BundleDamaged:
    return BundleDamaged(
        f"the archive behind the model is damaged ({what}); copy or export the file again"
    )


# --- .onnx: the top level of a protobuf message -------------------------------------------------


class _Record(NamedTuple):
    """One field of a protobuf message: positions in the data; ``value`` is set for varints."""

    number: int
    wire: int
    start: int
    body: int
    end: int
    value: int


def _looks_like_onnx(data: bytes) -> bool:
    """ModelProto starts with ``ir_version`` (field 1, a varint), which is a small number."""
    try:
        first = next(_records(data, 0, len(data), 1), None)
    except BundleDamaged:
        return False
    return first is not None and first.number == _IR_VERSION_FIELD and 1 <= first.value < 256


def _read_onnx(data: bytes) -> Container:
    texts: dict[str, bytes] = {}
    payload: list[tuple[int, int]] = []
    graphs: list[int] = []
    view = memoryview(data)
    for record in _records(data, 0, len(data), _MAX_FIELDS):
        if record.number == _METADATA_FIELD:
            if record.wire != _BYTES:
                raise BundleDamaged("a metadata entry of the ONNX file is malformed; copy it again")
            parts = _records(data, record.body, record.end, _MAX_ENTRY_FIELDS)
            entry = {p.number: view[p.body : p.end] for p in parts if p.wire == _BYTES}
            _keep(texts, "onnx", bytes(entry.get(1, b"")[:200]), entry.get(2, view[:0]))
            continue
        if record.number == _GRAPH_FIELD:
            graphs.append(record.wire)
        if payload and payload[-1][1] == record.start:
            payload[-1] = (payload[-1][0], record.end)
        else:
            payload.append((record.start, record.end))
    if graphs != [_BYTES]:
        raise BundleDamaged(f"{len(graphs)} graphs in the ONNX file, expected 1; copy it again")
    return Container("onnx", tuple(payload), texts)


def _records(data: bytes, position: int, end: int, most: int) -> Iterator[_Record]:
    """The fields of the protobuf message in ``data[position:end]``. Raises BundleDamaged."""
    count = 0
    while position < end:
        start, count = position, count + 1
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
        known = wire in (_VARINT, _FIXED64, _BYTES, _FIXED32)
        if not known or not 1 <= number <= _MAX_FIELD_NUMBER:
            raise BundleDamaged(f"no protobuf field at byte {start}; copy or export the file again")
        if count > most:
            raise BundleDamaged(f"more than {most} fields at byte {start}; export the file again")
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


def _field(number: int, content: bytes) -> bytes:
    """A protobuf field (1 to 15) of bytes."""
    length, size = bytearray(), len(content)
    while size >= 0x80:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | _BYTES, *length, size]) + content
