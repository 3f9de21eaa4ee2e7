"""The model's bytes live as long as the engine reads them; a closed session frees its memory."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from smidgen.runtime import Bundle, Classifier
from smidgen.runtime.engine import EngineOptions
from smidgen.runtime.engines import ENGINES

MakeBundle = Callable[..., Path]
PIXELS = np.full((2, 8, 8, 3), (10, 200, 90), np.uint8)
WIDE = 40_000  # 192 x WIDE float32 weights: 31 MB
NEEDS = {"litert": "ai_edge_litert", "onnxruntime": "onnxruntime", "tflite-micro": "tflite_micro"}
CASES = [("litert", "tflite"), ("tflite-micro", "tflite"), ("onnxruntime", "onnx")]


@pytest.mark.parametrize(("name", "model_format"), CASES)
def test_a_session_holds_the_bytes_until_it_is_closed(
    make_bundle: MakeBundle, name: str, model_format: str
) -> None:
    pytest.importorskip(NEEDS[name])
    bundle = Bundle.open(
        make_bundle(model_format, "int8" if model_format == "tflite" else "float32")
    )
    data, manifest = bytes(bytearray(bundle.data)), bundle.manifest
    alone = sys.getrefcount(data)
    session = ENGINES[name].open(data, manifest, EngineOptions())
    expected = session.run(PIXELS)
    assert sys.getrefcount(data) > alone
    session.close()
    gc.collect()
    assert sys.getrefcount(data) == alone
    session = ENGINES[name].open(bytes(bytearray(data)), manifest, EngineOptions())
    gc.collect()
    clutter = [bytearray(b"\xff" * len(data)) for _ in range(2000)]  # where freed bytes were
    np.testing.assert_array_equal(session.run(PIXELS), expected)
    assert len(clutter) == 2000


@pytest.fixture(scope="module")
def large_models() -> dict[str, bytes]:
    """Two fully connected layers with 31 MB of weights between them, as .tflite and as .onnx."""
    generator = np.random.default_rng(0)
    shapes = ((WIDE, 192), (3, WIDE))
    kernels = [generator.normal(0, 0.01, shape).astype(np.float32) for shape in shapes]
    return {"tflite": _tflite(kernels), "onnx": _onnx(kernels)}


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc: not Linux")
@pytest.mark.parametrize(("name", "model_format"), [CASES[0], CASES[2]])
def test_a_closed_session_gives_its_memory_back(
    make_manifest: Callable[..., Any], large_models: dict[str, bytes], name: str, model_format: str
) -> None:
    """A session takes at least the 31 MB of its packed or copied weights; a leak adds them up."""
    pytest.importorskip(NEEDS[name])
    manifest = make_manifest(model_format, "float32", "")
    data, kept = large_models[model_format], []

    def grown_mb(sessions: int, close: bool) -> float:
        gc.collect()
        before = _resident_bytes()
        for _ in range(sessions):
            session = ENGINES[name].open(data, manifest, EngineOptions())
            session.run(PIXELS)
            if close:
                session.close()
            kept.append(session)
        gc.collect()
        return (_resident_bytes() - before) / 1e6

    grown_mb(3, close=True)
    assert grown_mb(10, close=True) < 100
    assert grown_mb(10, close=False) > 200  # planted fault: never closed
    for session in kept:
        session.close()


def test_a_classifier_closes_its_engine(make_bundle: MakeBundle) -> None:
    pytest.importorskip("onnxruntime")
    bundle = Bundle.open(make_bundle("onnx"))
    data = bundle.data
    alone = sys.getrefcount(data)
    with Classifier(bundle, threads=1) as classifier:
        classifier.scores(PIXELS)
        assert sys.getrefcount(data) > alone
    gc.collect()
    assert sys.getrefcount(data) == alone


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _onnx(kernels: list[Any]) -> bytes:
    onnx = pytest.importorskip("onnx")
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=float32),
        helper.make_node("Flatten", ["real"], ["flat"]),
        helper.make_node("Gemm", ["flat", "k0"], ["wide"], transB=1),
        helper.make_node("Gemm", ["wide", "k1"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["N", 8, 8, 3])],
        [helper.make_tensor_value_info("probabilities", float32, ["N", 3])],
        [onnx.numpy_helper.from_array(kernel, f"k{n}") for n, kernel in enumerate(kernels)],
    )
    opset = [helper.make_opsetid("", 13)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


def _tflite(kernels: list[Any]) -> bytes:
    flatbuffers = pytest.importorskip("flatbuffers")
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    codes, options = schema.BuiltinOperator, schema.BuiltinOptions
    softmax = schema.SoftmaxOptionsT()
    softmax.beta = 1.0
    kinds = [
        (codes.CAST, options.CastOptions, schema.CastOptionsT()),
        (codes.FULLY_CONNECTED, options.FullyConnectedOptions, schema.FullyConnectedOptionsT()),
        (codes.SOFTMAX, options.SoftmaxOptions, softmax),
    ]
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.buffers = 3, [graph], [schema.BufferT()]
    model.operatorCodes, graph.tensors, graph.operators = [], [], []
    for code, _, _ in kinds:
        entry = schema.OperatorCodeT()
        entry.builtinCode = entry.deprecatedBuiltinCode = code
        entry.version = 1
        model.operatorCodes.append(entry)

    def tensor(shape: list[int], kind: int, values: Any = None) -> int:
        made = schema.TensorT()
        made.shape, made.type, made.name = shape, kind, f"t{len(graph.tensors)}"
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            made.buffer = len(model.buffers)
            model.buffers.append(buffer)
        graph.tensors.append(made)
        return len(graph.tensors) - 1

    def step(kind: int, inputs: list[int], output: int) -> int:
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = kind, inputs, [output]
        made.builtinOptionsType, made.builtinOptions = kinds[kind][1:]
        graph.operators.append(made)
        return output

    real = schema.TensorType.FLOAT32
    graph.inputs = [tensor([1, 8, 8, 3], schema.TensorType.UINT8)]
    value = step(0, graph.inputs, tensor([1, 8, 8, 3], real))
    for kernel in kernels:
        inputs = [value, tensor(list(kernel.shape), real, kernel), -1]
        value = step(1, inputs, tensor([1, len(kernel)], real))
    graph.outputs = [step(2, [value], tensor([1, 3], real))]
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())
