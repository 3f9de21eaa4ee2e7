"""Tiny real Bundles: a model whose answer numpy can compute, packed the way the format says."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from smidgen.runtime.bundle import payload_sha256
from smidgen.runtime.manifest import (
    LABELS_FILE,
    MANIFEST_FILE,
    ONNX_MANIFEST_HASH_KEY,
    ONNX_MANIFEST_KEY,
    Manifest,
    Preprocessing,
    Provenance,
    TensorSpec,
)
from smidgen.runtime.selftest import make_golden

HERE = Path(__file__).parent
LABELS = ("red", "grün", "blue")
SIDE = 8


@pytest.fixture(scope="session")
def expected_scores() -> Callable[[Any], Any]:
    """What the tiny model computes: softmax(4 * mean((x - 127) / 128)) over each channel."""

    def compute(pixels: Any) -> Any:
        means = ((pixels.astype(np.float64) - 127) / 128).mean(axis=(1, 2))
        powers = np.exp(4 * means)
        return powers / powers.sum(axis=1, keepdims=True)

    return compute


@pytest.fixture(scope="session")
def make_manifest() -> Callable[..., Manifest]:
    """A manifest for the tiny model; keyword arguments replace fields."""

    def make(model_format: str, scheme: str, payload: str, **changes: Any) -> Manifest:
        quantized = (model_format, scheme) == ("tflite", "int8")
        output = TensorSpec("probabilities", (-1, 3), "float32", "NC", 0.0, 1.0)
        if quantized:
            output = dataclasses.replace(output, dtype="uint8", scale=1 / 256)
        manifest = Manifest(
            name="tiny",
            model_format=model_format,  # type: ignore[arg-type]
            scheme=scheme,  # type: ignore[arg-type]
            labels=LABELS,
            preprocessing=Preprocessing(width=SIDE, height=SIDE),
            input=TensorSpec("image", (-1, SIDE, SIDE, 3), "uint8", "NHWC", 0.0, 255.0),
            output=output,
            provenance=Provenance("2026-11-22T00:00:00Z", "tiny", "test", "", "", ""),
            payload_sha256=payload,
        )
        return dataclasses.replace(manifest, **changes)

    return make


@pytest.fixture(scope="session")
def pack_tflite() -> Callable[..., bytes]:
    """Model bytes and a manifest as the bytes of a .tflite Bundle."""

    def pack(model: bytes, manifest: Manifest, labels: Any = None, compression: int = 0) -> bytes:
        stream = io.BytesIO(model)
        names = manifest.labels if labels is None else labels
        with zipfile.ZipFile(stream, "a", compression) as archive:
            archive.writestr(LABELS_FILE, "\n".join(names) + "\n")
            archive.writestr(MANIFEST_FILE, manifest.to_json())
        return stream.getvalue()

    return pack


@pytest.fixture(scope="session")
def pack_onnx() -> Callable[..., bytes]:
    """Model bytes and a manifest as the bytes of an .onnx Bundle: two appended fields 14."""

    def field(number: int, content: bytes) -> bytes:
        length, size = b"", len(content)
        while size >= 0x80:
            length += bytes([size & 0x7F | 0x80])
            size >>= 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + content

    def pack(model: bytes, manifest: Manifest) -> bytes:
        text = manifest.to_json().encode()
        digest = hashlib.sha256(text).hexdigest().encode()
        for key, value in ((ONNX_MANIFEST_KEY, text), (ONNX_MANIFEST_HASH_KEY, digest)):
            model += field(14, field(1, key.encode()) + field(2, value))
        return model

    return pack


@pytest.fixture(scope="session")
def onnx_model() -> bytes:
    """The tiny model as ONNX, with a free batch size."""
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=kinds.FLOAT),
        helper.make_node("Sub", ["real", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "gain"], ["scaled"]),
        helper.make_node("ReduceMean", ["scaled"], ["means"], axes=[1, 2], keepdims=0),
        helper.make_node("Softmax", ["means"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", kinds.UINT8, ["N", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("probabilities", kinds.FLOAT, ["N", 3])],
        [
            helper.make_tensor("mean", kinds.FLOAT, [1], [127.0]),
            helper.make_tensor("gain", kinds.FLOAT, [1], [4 / 128]),
        ],
    )
    opset = [helper.make_opsetid("", 13)]
    model = helper.make_model(graph, opset_imports=opset, producer_name="test", ir_version=8)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="session")
def photo_png() -> bytes:
    """A 24 x 16 picture, reddish on the left, bluish on the right, as PNG."""
    pil = pytest.importorskip("PIL.Image")
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:, :16, 0] = 200
    pixels[:, 12:, 2] = 120
    pixels[4:9, 6:9] = 255
    stream = io.BytesIO()
    pil.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def make_bundle(  # noqa: PLR0913, PLR0917  (fixtures)
    tmp_path: Path,
    make_manifest: Callable[..., Manifest],
    pack_tflite: Callable[..., bytes],
    pack_onnx: Callable[..., bytes],
    expected_scores: Callable[[Any], Any],
    photo_png: bytes,
    request: pytest.FixtureRequest,
) -> Callable[..., Path]:
    """Writes a Bundle with a golden sample; keyword arguments replace manifest fields."""

    def make(model_format: str = "tflite", scheme: str = "float32", **changes: Any) -> Path:
        if model_format == "tflite":
            model = (HERE / f"tiny-{scheme}.tflite").read_bytes()
        else:
            model = request.getfixturevalue("onnx_model")
        tolerance = 2 / 256 if scheme == "int8" else 1e-4
        size = Preprocessing(width=SIDE, height=SIDE)
        changes.setdefault(
            "golden", make_golden(photo_png, size, expected_scores, LABELS, tolerance)
        )
        manifest = make_manifest(model_format, scheme, payload_sha256(model), **changes)
        pack = pack_tflite if model_format == "tflite" else pack_onnx
        path = tmp_path / f"tiny-{scheme}.{model_format}"
        path.write_bytes(pack(model, manifest))
        return path

    return make
