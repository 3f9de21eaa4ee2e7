"""Targets: the tables against the runtimes themselves, and real files that each of them refuses."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import numpy as np
import onnxruntime
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper

from smidgen.export.errors import ConversionError, TargetError
from smidgen.export.formats.micro_operators import MICRO_METHODS
from smidgen.export.formats.onnx_releases import ONNXRUNTIME_RELEASES
from smidgen.export.formats.operator_table import FIRST_TFLITE
from smidgen.export.formats.operator_versions import (
    first_litert,
    first_tflite,
    highest_version,
    release,
)
from smidgen.export.formats.runtimes import (
    TARGETS,
    check_target,
    minimum_runtime,
    parse_target,
    require_target,
)
from smidgen.export.formats.tflite_file import read_model, write_model

CODES = {k: v for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}
OPERATORS = [line.split()[0] for line in FIRST_TFLITE.strip().splitlines()]


def naming(operator: str, number: int, custom: bytes | None = None) -> bytes:
    """A TFLite file that lists one operator version and computes nothing."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version = 3
    code = schema.OperatorCodeT()
    code.builtinCode, code.version, code.customCode = CODES[operator], number, custom
    code.deprecatedBuiltinCode = min(CODES[operator], 127)
    tensor = schema.TensorT()
    tensor.shape, tensor.buffer, tensor.name = [1], 0, b"x"
    graph.tensors, graph.inputs, graph.outputs, graph.operators = [tensor], [0], [0], []
    model.operatorCodes, model.subgraphs, model.buffers = [code], [graph], [schema.BufferT()]
    return write_model(model)


def stamped(opset: int, ir_version: int, kind: str = "Relu") -> bytes:
    """An ONNX file of one operator."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node(kind, ["x"], ["y"])], "g", [value[0]], [value[1]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = ir_version
    return model.SerializeToString()


def opens(data: bytes) -> bool:
    try:
        Interpreter(model_content=data)
    except (ValueError, RuntimeError):
        return False
    return True


def test_the_table_has_what_the_installed_litert_registers_and_nothing_more():
    here = release(version("ai-edge-litert"))
    assert len(OPERATORS) == 173
    for operator in OPERATORS:
        highest = highest_version(operator, lambda text: release(text) <= here, first_litert)
        assert not highest or opens(naming(operator, highest)), (operator, highest)
        assert not opens(naming(operator, highest + 1)), (operator, highest)


def test_the_table_has_what_the_installed_onnxruntime_opens_and_nothing_more():
    here = release(version("onnxruntime"))
    _, opset, ir_version = [row for row in ONNXRUNTIME_RELEASES if release(row[0]) <= here][-1]
    onnxruntime.InferenceSession(stamped(opset, ir_version))
    for refused in (stamped(opset + 1, ir_version), stamped(opset, ir_version + 1)):
        with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.Fail):
            onnxruntime.InferenceSession(refused)


@pytest.mark.parametrize(
    ("operator", "number", "tflite", "litert"),
    [
        ("CONV_2D", 3, "1.14.0", "1.0.1"),
        ("FULLY_CONNECTED", 10, "2.11.0", "1.0.1"),
        ("FULLY_CONNECTED", 12, "2.17.0", "1.0.1"),
        ("FULLY_CONNECTED", 14, "2.21.0", "2.1.0"),
        ("TRANSPOSE", 7, "2.14.4", "1.2.0"),
        ("BROADCAST_TO", 1, "", ""),
        ("CONV_2D", 99, "", ""),
        ("CONV_2D", 0, "", ""),
    ],
)
def test_first_releases(operator, number, tflite, litert):
    assert first_tflite(operator, number) == tflite
    assert first_litert(operator, number) == litert


def test_versions_compare_as_numbers():
    assert release("2.9.0") < release("2.14.0") < release("2.14.4") < release("2.15")
    assert release("2.14") == (2, 14, 0)
    assert release("1.32.0rc1") == (1, 32, 0)


@pytest.mark.parametrize(
    ("target", "number", "problems"),
    [
        ("tflite-runtime==2.14", 10, []),
        ("tflite-runtime==2.14.0", 11, ["11", "10", "use litert 1.0.1 or newer"]),
        ("tflite-runtime==2.10", 10, ["10", "9", "use tflite-runtime 2.11.0 or newer"]),
        ("litert", 14, []),
        ("litert==2.0.3", 14, ["14", "13", "use litert 2.1.0 or newer"]),
        ("litert==9.9", 14, []),
        ("litert", 15, ["15", "14", "export int8"]),
    ],
)
def test_operator_versions_of_a_target(target, number, problems):
    found = check_target(naming("FULLY_CONNECTED", number), "tflite", target)
    if not problems:
        assert found == ()
        return
    (problem,) = found
    assert problem.operator == "FULLY_CONNECTED"
    assert problem.found == f"version {problems[0]}"
    assert problem.available == f"versions up to {problems[1]}"
    assert problem.remedy.startswith(problems[2])
    assert "\n" not in str(problem)


@pytest.mark.parametrize("target", ["litert", "tflite-runtime", "tflite-micro", "edgetpu-ready"])
def test_custom_operators_are_refused_by_name(target):
    found = check_target(naming("CUSTOM", 1, b"FlexErf"), "tflite", target)
    assert "FlexErf" in str(found[0])


def test_onnx_releases():
    assert check_target(stamped(20, 9), "onnx", "onnxruntime==1.17") == ()
    (problem,) = check_target(stamped(22, 9, "Elu"), "onnx", "onnxruntime==1.17.3")
    assert (problem.operator, problem.found, problem.available) == (
        "Elu",
        "of opset 22",
        "opset 20",
    )
    assert problem.remedy == "use onnxruntime 1.21 or newer, or export with opset 20"
    (problem,) = check_target(stamped(21, 9, "Relu"), "onnx", "onnxruntime==1.17")
    assert (problem.operator, problem.found) == ("", "opset 21")  # Relu did not change
    (problem,) = check_target(stamped(13, 10), "onnx", "onnxruntime==1.17")
    assert problem.found == "IR version 10"
    assert minimum_runtime(stamped(13, 7), "onnx") == {"onnxruntime": "1.7"}
    assert minimum_runtime(stamped(21, 10), "onnx") == {"onnxruntime": "1.18"}
    assert minimum_runtime(stamped(99, 10), "onnx") == {}


@pytest.mark.parametrize(
    "text", ["", "tflite", "litert==", "litert==new", "tflite-micro==1", "onnxruntime=1.17"]
)
def test_bad_targets_are_refused_in_one_line(text):
    with pytest.raises(TargetError, match=r"^target [^\n]*$"):
        parse_target(text)


@pytest.mark.parametrize("text", ["litert==0.9", "tflite-runtime==1.13", "onnxruntime==1.6"])
def test_releases_before_the_tables_are_refused(text):
    model = stamped(13, 7) if text.startswith("onnx") else naming("ADD", 1)
    with pytest.raises(TargetError, match="nothing is known of releases before"):
        check_target(model, parse_target(text).model_format, text)


def test_another_format_is_a_problem_and_another_file_an_error():
    (problem,) = check_target(b"", "onnx", "litert")
    assert problem.found == "a .onnx file"
    for form in ("onnx", "tflite"):
        with pytest.raises(ConversionError):
            check_target(b"no model at all", form, "onnxruntime" if form == "onnx" else "litert")


def wide_network():
    """More than 1,024 weights in a layer: what dynamic-range quantization touches."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    image = keras.Input((16, 16, 3), batch_size=1)
    x = layers.Conv2D(64, 3, strides=2, padding="same", activation="relu")(image)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(64, 1)(x))
    return keras.Model(image, layers.Dense(32, activation="softmax")(x))


def swish_network():
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    image = keras.Input((16, 16, 3), batch_size=1)
    x = layers.Activation("hard_swish")(layers.Conv2D(8, 3, strides=2)(image))
    x = layers.GlobalAveragePooling2D()(layers.Activation("swish")(x))
    return keras.Model(image, layers.Dense(4, activation="softmax")(x))


@pytest.fixture(scope="module")
def files(small_bundles) -> dict[str, bytes]:
    """Our own int8 and float32 Bundles, and what the plain converter makes of other networks."""
    from smidgen.export.tensorflow_backend import captured_output, tf

    def converted(network, scheme: str) -> bytes:
        converter = tf.lite.TFLiteConverter.from_keras_model(network)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if scheme == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if scheme in ("int8", "int16x8"):
            random = np.random.default_rng(0)
            pixels = random.normal(0, 1, (8, 1, 16, 16, 3)).astype(np.float32)
            converter.representative_dataset = lambda: ([row] for row in pixels)
            sets = tf.lite.OpsSet
            wide = sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
            narrow = sets.TFLITE_BUILTINS_INT8
            converter.target_spec.supported_ops = [narrow if scheme == "int8" else wide]
        if scheme == "int8":
            converter.inference_input_type = converter.inference_output_type = tf.uint8
        return bytes(converter.convert())

    with captured_output():
        wide = {scheme: converted(wide_network(), scheme) for scheme in SCHEMES}
        swish = converted(swish_network(), "int8")
    ours = {
        f"ours {scheme}": small_bundles["tflite", scheme].read_bytes()
        for scheme in ("float32", "int8")
    }
    return {**wide, "swish": swish, **ours}


SCHEMES = ("dynamic", "float16", "int16x8")
MICRO_WORKS = {"ours int8", "swish", "int16x8"}


@pytest.mark.slow
def test_our_int8_file_fits_every_tflite_target(files):
    for target in ("litert==1.0.1", "tflite-runtime==2.4", "tflite-micro", "edgetpu-ready"):
        require_target(files["ours int8"], "tflite", target)
    assert minimum_runtime(files["ours int8"], "tflite") == {"tflite": "1.14.0", "litert": "1.0.1"}


@pytest.mark.slow
def test_a_dynamic_range_file_is_refused_for_tflite_runtime_by_the_operators_name(files):
    with pytest.raises(TargetError) as caught:
        require_target(files["dynamic"], "tflite", "tflite-runtime==2.14")
    assert str(caught.value) == (
        "the file does not run in tflite-runtime==2.14: FULLY_CONNECTED (version 12; the target "
        "has versions up to 10): use litert 1.0.1 or newer, or export int8"
    )
    assert minimum_runtime(files["dynamic"], "tflite")["tflite"] == "2.17.0"
    # the fault planted: the same file with the operator's version lowered is accepted
    model = read_model(files["dynamic"])
    for code in model.operatorCodes:
        code.version = min(code.version, 10)
    require_target(write_model(model), "tflite", "tflite-runtime==2.14")


@pytest.mark.slow
def test_our_onnx_files_fit_a_release_that_is_years_old(small_bundles):
    for scheme in ("float32", "int8"):
        data = small_bundles["onnx", scheme].read_bytes()
        require_target(data, "onnx", "onnxruntime==1.17")
        assert minimum_runtime(data, "onnx") == {"onnxruntime": "1.7"}


@pytest.mark.slow
def test_int16_needs_a_newer_runtime_than_its_operator_versions_say(files):
    recorded = {code.version for code in read_model(files["int16x8"]).operatorCodes}
    assert max(recorded) <= 4  # the converter stamps them as it does for int8
    assert minimum_runtime(files["int16x8"], "tflite")["tflite"] == "2.4.0"
    assert check_target(files["int16x8"], "tflite", "tflite-runtime==2.3")
    assert not check_target(files["int16x8"], "tflite", "tflite-runtime==2.4")


@pytest.mark.slow
def test_edgetpu_refuses_swish_floats_and_open_shapes(files):
    found = check_target(files["swish"], "tflite", "edgetpu-ready")
    assert [problem.operator for problem in found] == ["HARD_SWISH"]
    found = check_target(files["ours float32"], "tflite", "edgetpu-ready")
    assert "float32 values" in str(found)
    model = read_model(files["ours int8"])
    model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]].shapeSignature = [-1, 32, 32, 3]
    (problem,) = check_target(write_model(model), "tflite", "edgetpu-ready")
    assert (problem.operator, problem.found) == ("QUANTIZE", "shape (-1, 32, 32, 3)")
    model = read_model(files["ours int8"])
    for operator in model.subgraphs[0].operators:
        if isinstance(operator.builtinOptions, schema.Conv2DOptionsT):
            operator.builtinOptions.dilationWFactor = 2
    (problem,) = check_target(write_model(model), "tflite", "edgetpu-ready")
    assert (problem.operator, problem.found) == ("CONV_2D", "dilation 1x2")


@pytest.mark.slow
def test_tflite_micro_itself_agrees_on_every_file(files, tmp_path):
    script = (
        "import sys; from tflite_micro.python.tflite_micro import runtime\n"
        "model = runtime.Interpreter.from_file(sys.argv[1], arena_size=1 << 20)\n"
        "image = model.get_input_details(0)\n"
        "import numpy; model.set_input(numpy.zeros(image['shape'], image['dtype']), 0)\n"
        "model.invoke()"
    )
    for name, data in files.items():
        path = tmp_path / "model.tflite"
        path.write_bytes(data)
        done = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, check=False
        )
        problems = check_target(data, "tflite", "tflite-micro")
        assert (done.returncode == 0) == (not problems) == (name in MICRO_WORKS), (name, problems)


def test_every_target_is_covered():
    assert set(TARGETS) == {
        "litert",
        "tflite-runtime",
        "onnxruntime",
        "tflite-micro",
        "edgetpu-ready",
    }
    assert MICRO_METHODS["CONV_2D"] == "AddConv2D"
    assert "STABLEHLO_GATHER" not in MICRO_METHODS
