"""Float model to a float32 ONNX file, channels first inside.

The network is converted to a core which takes decoded pixels ``(N, 3, H, W) float32`` and has no
Transpose in it. A short entry is then put before it: ``uint8`` pixels ``(N, H, W, 3)``, one
Transpose of bytes, and the arithmetic that decodes them.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from smidgen.export.errors import ConversionError
from smidgen.export.graphs.deploy_graph import (
    INPUT_NAME,
    OUTPUT_NAME,
    PixelCode,
    quantizable_graph,
)
from smidgen.export.source import ChannelNormalization
from smidgen.export.tensorflow_backend import captured_output, tf
from smidgen.runtime.errors import SmidgenError

OPSET = 13
"""The lowest with a per-channel DequantizeLinear, so that old runtimes on boards can load it."""

IR_VERSION = 7
"""What belongs to opset 13."""

MINIMUM_ONNXRUNTIME = "1.7"
"""The first ONNX Runtime for opset 13 and IR 7 (its table "Compatibility with ONNX")."""

PLANES_NAME = "planes"
"""The core's input: decoded pixels, ``(N, 3, H, W) float32``."""


def to_onnx_core(model: Any, normalization: ChannelNormalization) -> Any:
    """ModelProto: ``planes (N, 3, H, W) float32`` to ``probabilities (N, classes) float32``."""
    import tf2onnx

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    graph = quantizable_graph(model, normalization, batch=None)
    spec = tf.TensorSpec((None, *model.input.shape[1:]), tf.float32, name=PLANES_NAME)

    @tf.function(input_signature=[spec], jit_compile=False)  # type: ignore[untyped-decorator]
    def forward(planes: Any) -> dict[str, Any]:
        return {OUTPUT_NAME: graph(planes, training=False)}

    with captured_output():
        try:
            core, _ = tf2onnx.convert.from_function(
                forward,
                input_signature=[spec],
                opset=OPSET,
                inputs_as_nchw=[f"{PLANES_NAME}:0"],
            )
        except SmidgenError:
            raise
        except Exception as error:  # tf2onnx has no error class of its own
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ConversionError(
                f"tf2onnx failed ({reason[:300]}): check the layers of the network, or "
                "export tflite"
            ) from error
    core.ir_version = IR_VERSION
    core.graph.name = "smidgen"
    for value in (*core.graph.input, *core.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    _check_core(core, model.count_params())
    return core


def with_float_entry(core: Any, code: PixelCode) -> Any:
    """``core`` behind Transpose, Cast, Sub and Mul: ``uint8 (N, H, W, 3)`` pixels in."""
    constants = {
        "pixel_zero_point": np.asarray(code.zero_point, np.float32),
        "pixel_scale": np.asarray(code.scale, np.float32),
    }
    nodes = [
        helper.make_node("Cast", ["bytes"], ["values"], "pixels_to_float", to=TensorProto.FLOAT),
        helper.make_node("Sub", ["values", "pixel_zero_point"], ["centred"], "pixels_centred"),
        helper.make_node("Mul", ["centred", "pixel_scale"], [PLANES_NAME], "pixels_scaled"),
    ]
    return _with_entry(core, nodes, constants)


def finish(model: Any) -> bytes:
    """The file's bytes, after the checker and our own rules.

    Raises:
        ConversionError: the graph is not valid, or pixels are transposed more than once.
    """
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConversionError(f"the ONNX file is not valid ({reason}): report this") from error
    transposes = [node.name for node in model.graph.node if node.op_type == "Transpose"]
    if len(transposes) != 1:
        raise ConversionError(
            f"the ONNX file transposes {len(transposes)} times ({', '.join(transposes)}), expected "
            "once, at the input: report this with the recipe"
        )
    return bytes(model.SerializeToString(deterministic=True))


def _with_entry(core: Any, nodes: list[Any], constants: dict[str, Any]) -> Any:
    model = onnx.ModelProto()
    model.CopyFrom(core)
    graph = model.graph
    batch, channels, height, width = graph.input[0].type.tensor_type.shape.dim
    image = helper.make_tensor_value_info(
        INPUT_NAME,
        TensorProto.UINT8,
        [batch.dim_param, height.dim_value, width.dim_value, channels.dim_value],
    )
    transpose = helper.make_node(
        "Transpose", [INPUT_NAME], ["bytes"], "pixels_to_planes", perm=[0, 3, 1, 2]
    )
    rest = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.input.append(image)
    graph.node.extend([transpose, *nodes, *rest])
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(value, name))
    model.producer_name = "smidgen"
    model.producer_version = ""
    model.doc_string = ""
    return model


def _check_core(core: Any, weights: int) -> None:
    stored = sum(int(np.prod(tensor.dims)) for tensor in core.graph.initializer)
    if not 0.9 * weights <= stored <= 1.1 * weights + 16384:
        raise ConversionError(
            f"the ONNX graph holds {stored} numbers for {weights} weights: the converter lost or "
            "repeated some; report this with the recipe"
        )
    shape = [dim.dim_value for dim in core.graph.input[0].type.tensor_type.shape.dim]
    ends = [value.name for value in (*core.graph.input, *core.graph.output)]
    if ends != [PLANES_NAME, OUTPUT_NAME] or shape[1] != 3:
        raise ConversionError(
            f"the ONNX graph goes from {ends[0]} {shape} to {ends[-1]}: expected {PLANES_NAME} "
            f"(N, 3, H, W) to {OUTPUT_NAME}; report this with the recipe"
        )
