"""Bundles byte by byte: the metadata that others read, the zip, the manifest, equal bytes."""

from __future__ import annotations

import dataclasses
import io
import struct
import zipfile

import flatbuffers
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from flatbuffers.table import Table
from onnx import TensorProto, helper

from smidgen.export.errors import MetadataError
from smidgen.export.formats.pack import pack, with_findings
from smidgen.export.formats.tflite_file import metadata_entries, read_model, write_model
from smidgen.export.formats.tflite_metadata import ENTRY_NAME, metadata_buffer
from smidgen.runtime.bundle import Bundle, payload_sha256
from smidgen.runtime.errors import BundleError
from smidgen.runtime.manifest import Manifest, Preprocessing, Provenance, TensorSpec, Verdict

MANIFEST = Manifest(
    name="toy-int8",
    model_format="tflite",
    scheme="int8",
    labels=("oak", "élan", "zebra crossing"),
    preprocessing=Preprocessing(width=24, height=16),
    input=TensorSpec("image", (1, 16, 24, 3), "uint8", "NHWC", 0.0, 255.0),
    output=TensorSpec("probabilities", (1, 3), "uint8", "NC", 0.0, 255 / 256, scale=1 / 256),
    provenance=Provenance(
        created_utc="2026-11-01T00:00:00Z",
        backbone="toy",
        source="test",
        recipe_toml="",
        weights_sha256="ab" * 32,
        data_sha256="cd" * 32,
    ),
    payload_sha256="",
)
VERDICT = Verdict("pass", 500, 90.0, 89.8, 0.2, -0.5, 0.9, 1.0, 3, 0.001, 0.05)


def tiny_tflite() -> bytes:
    model = schema.ModelT()
    model.version = 3
    empty, weights = schema.BufferT(), schema.BufferT()
    weights.data = np.arange(100, dtype=np.uint8)
    model.buffers = [empty, weights]
    model.subgraphs, model.operatorCodes, model.metadata = [], [], []
    model.description = "tiny"
    return write_model(model)


def tiny_onnx() -> bytes:
    end = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [], [end])
    return helper.make_model(graph).SerializeToString(deterministic=True)


def table_at(buffer: bytes, position: int) -> Table:
    return Table(buffer, position)


def field(table: Table, slot: int) -> int:
    """Absolute position of a field's value, 0 where it is absent."""
    offset = table.Offset(4 + 2 * slot)
    return table.Pos + offset if offset else 0


def sub_table(table: Table, slot: int) -> Table:
    return Table(table.Bytes, table.Indirect(field(table, slot)))


def element(table: Table, slot: int, index: int = 0) -> Table:
    start = table.Vector(field(table, slot) - table.Pos)
    return Table(table.Bytes, table.Indirect(start + 4 * index))


def text(table: Table, slot: int) -> str:
    return table.String(field(table, slot)).decode()


def floats(table: Table, slot: int) -> list[float]:
    offset = field(table, slot) - table.Pos
    start, count = table.Vector(offset), table.VectorLen(offset)
    return list(struct.unpack_from(f"<{count}f", table.Bytes, start))


def test_metadata_has_the_public_schemas_fields_at_their_numbers():
    buffer = metadata_buffer(MANIFEST)
    assert buffer[4:8] == b"M001"
    root = flatbuffers.encode.Get(flatbuffers.packer.uoffset, buffer, 0)
    model = Table(bytearray(buffer), root)
    assert (text(model, 0), text(model, 7)) == ("toy-int8", "1.0.0")
    assert text(element(model, 6), 0) == "smidgen.json"
    graph = element(model, 3)
    image, scores = element(graph, 2), element(graph, 3)
    assert (text(image, 0), text(scores, 0)) == ("image", "probabilities")
    content = sub_table(image, 3)
    assert content.Get(flatbuffers.number_types.Uint8Flags, field(content, 0)) == 2
    properties = sub_table(content, 1)
    assert properties.Get(flatbuffers.number_types.Int8Flags, field(properties, 0)) == 1
    size = sub_table(properties, 1)
    flags = flatbuffers.number_types.Uint32Flags
    assert [size.Get(flags, field(size, slot)) for slot in (0, 1)] == [24, 16]
    assert (floats(sub_table(image, 5), 0), floats(sub_table(image, 5), 1)) == ([255.0], [0.0])
    labels = element(scores, 6)
    assert text(labels, 0) == "labels.txt"
    assert labels.Get(flatbuffers.number_types.Int8Flags, field(labels, 2)) == 2


@pytest.mark.parametrize("form", ["tflite", "onnx"])
def test_bundle_reads_back_and_equal_input_gives_equal_bytes(form, tmp_path):
    model = tiny_tflite() if form == "tflite" else tiny_onnx()
    manifest = dataclasses.replace(MANIFEST, model_format=form)
    data, packed = pack(model, manifest)
    assert pack(model, manifest) == (data, packed)
    path = tmp_path / f"toy.{form}"
    path.write_bytes(data)
    bundle = Bundle.open(path)
    assert bundle.manifest == packed
    assert payload_sha256(data) == packed.payload_sha256
    # findings are added, the model bytes stay
    judged, found = with_findings(data, packed, VERDICT, None)
    assert found.verdict == VERDICT
    assert found.payload_sha256 == packed.payload_sha256 == payload_sha256(judged)
    # planted fault: another model under the same manifest
    other = data.replace(b"tiny", b"TINY") if form == "tflite" else data.replace(b"\x01g", b"\x01h")
    with pytest.raises((MetadataError, BundleError)):
        with_findings(other, packed, VERDICT, None)


def test_zip_is_stored_with_fixed_dates_and_the_label_file():
    data, _ = pack(tiny_tflite(), MANIFEST)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        assert [entry.filename for entry in entries] == ["labels.txt", "smidgen.json"]
        assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}
        assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}
        assert archive.read("labels.txt").decode() == "oak\nélan\nzebra crossing\n"
    assert ENTRY_NAME in metadata_entries(read_model(data))


def test_weights_stay_aligned_to_16_bytes():
    data, _ = pack(tiny_tflite(), MANIFEST)
    assert data.index(bytes(range(100))) % 16 == 0


def test_onnx_manifest_is_written_once_and_packing_again_replaces_it():
    manifest = dataclasses.replace(MANIFEST, model_format="onnx")
    data, packed = pack(tiny_onnx(), manifest)
    again, _ = with_findings(data, packed, VERDICT, None)
    properties = onnx.load_from_string(again).metadata_props
    keys = [entry.key for entry in properties]
    assert keys == ["smidgen.manifest", "smidgen.manifest_sha256"]


@pytest.mark.parametrize("label", ["", " oak", "two\nlines", "a\u2028b"])
def test_labels_that_a_text_file_cannot_hold_are_refused(label):
    manifest = dataclasses.replace(MANIFEST, labels=("oak", label, "ash"))
    with pytest.raises(MetadataError, match="cannot be a line"):
        pack(tiny_tflite(), manifest)
