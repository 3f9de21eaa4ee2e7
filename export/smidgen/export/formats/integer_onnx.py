"""int8 ONNX from the int8 TFLite file: its scales, zero points, weights and biases as they are.

Quantize once, ship twice: both files hold the same integers, so that what was measured on one
holds for the other but for rounding. QDQ format, channels first, ``uint8`` pixels in, ``float32``
probabilities out (the final Softmax works on the TFLite file's integer logits and is not rounded to
1/256 behind it).

Activations are stored as uint8 (``u8``) or int8 (``s8``). On x86 without VNNI instructions ONNX
Runtime adds pairs of u8 x s8 products in 16 bits, which may saturate (its documentation,
"Quantize ONNX models", on U8S8); s8 has no such limit and is slower where VNNI is there.
"""

from __future__ import annotations

from typing import Any

import onnx
from onnx import TensorProto, helper

from smidgen.export.errors import ConversionError
from smidgen.export.formats import onnx_operators
from smidgen.export.formats.onnx_values import Activations, OnnxValues
from smidgen.export.formats.tflite_graph import TfliteGraph
from smidgen.export.formats.to_onnx import IR_VERSION, OPSET, finish
from smidgen.export.graphs.deploy_graph import INPUT_NAME, OUTPUT_NAME

_PASSED_THROUGH = ("QUANTIZE", "DEQUANTIZE")


def to_onnx_int8(tflite: bytes, activations: Activations = "u8") -> bytes:
    """The ``.onnx`` file with the integers of an int8 ``.tflite`` file of one network.

    Args:
        tflite: full int8 (or int8 with float operators between), ``(1, H, W, 3) uint8`` in, one
            output ``(1, classes)``.
        activations: how the int8 activations are stored; the same real numbers either way.

    Returns:
        ``image (batch, H, W, 3) uint8`` to ``probabilities (batch, classes) float32``, any batch.

    Raises:
        ConversionError: other ends, or an operator without a form here (which is named).
    """
    graph = TfliteGraph.read(tflite)
    _check_ends(graph)
    entry, last = graph.inputs[0], _last_value(graph)
    is_score = graph.producers[last].kind == "SOFTMAX" and len(graph.consumers(last)) <= 1
    values = OnnxValues(graph, activations, frozenset({last} if is_score else ()))
    planes = values.node("Transpose", [INPUT_NAME], "pixels_to_planes", perm=[0, 3, 1, 2])
    values.set_stored(entry, planes)
    for step in graph.operators:
        onnx_operators.emit(values, step)
        if last in step.outputs:
            break
    return finish(_model(graph, values, values.real(last)))


def _check_ends(graph: TfliteGraph) -> None:
    ends = [graph.tensors[index] for index in (*graph.inputs, *graph.outputs)]
    shapes = [(tensor.kind, tensor.shape) for tensor in ends]
    is_image = len(ends) == 2 and ends[0].kind == "UINT8" and len(ends[0].shape) == 4
    if not is_image or ends[0].shape[0] != 1 or ends[0].shape[3] != 3 or len(ends[1].shape) != 2:
        raise ConversionError(
            f"the TFLite file has the ends {shapes}: expected (1, H, W, 3) uint8 pixels in and "
            "(1, classes) out; give the file with uint8 ends"
        )


def _last_value(graph: TfliteGraph) -> int:
    """The output before QUANTIZE and DEQUANTIZE, which only change how it is stored."""
    last = graph.outputs[0]
    while last in graph.producers and graph.producers[last].kind in _PASSED_THROUGH:
        last = graph.producers[last].inputs[0]
    return last


def _model(graph: TfliteGraph, values: OnnxValues, output: str) -> Any:
    for node in values.nodes:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == output:
                    names[place] = OUTPUT_NAME
    image, scores = graph.tensors[graph.inputs[0]].shape, graph.tensors[graph.outputs[0]].shape
    made = helper.make_graph(
        values.nodes,
        "smidgen",
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["batch", *image[1:]])],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["batch", scores[1]])],
    )
    used = {name for node in made.node for name in node.input}
    made.initializer.extend(tensor for name, tensor in values.initializers.items() if name in used)
    model = onnx.ModelProto(ir_version=IR_VERSION, producer_name="smidgen")
    model.graph.CopyFrom(made)
    model.opset_import.append(helper.make_opsetid("", OPSET))
    return model
