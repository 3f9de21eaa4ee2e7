"""Engines that are too old, that answer wrongly, that are slow, that lack an operator."""

from __future__ import annotations

import dataclasses
import platform
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, get_args

import pytest

from smidgen.runtime import EngineFailed, EngineMissing
from smidgen.runtime.compatibility import KNOWN_PROBLEMS, check_fit, promises_bits, slowness
from smidgen.runtime.engine import EngineOptions
from smidgen.runtime.engine_checks import failed, installed_version
from smidgen.runtime.engines import ENGINES, select_engine
from smidgen.runtime.errors import SlowEngineWarning
from smidgen.runtime.fake import FakeEngine
from smidgen.runtime.manifest import Scheme

HERE = Path(__file__).parent
X86, ARM = "x86_64", "armv7l"


@pytest.fixture
def only() -> Iterator[Callable[..., None]]:
    """Puts fakes in place of the whole table; the table and its order come back afterwards."""
    table = dict(ENGINES)

    def put(*engines: FakeEngine) -> None:
        ENGINES.clear()
        ENGINES.update({engine.name: engine for engine in engines})

    yield put
    ENGINES.clear()
    ENGINES.update(table)


@pytest.fixture
def of(make_manifest: Callable[..., Any]) -> Callable[..., Any]:
    """A manifest of a scheme, .tflite."""

    def make(scheme: str, **changes: Any) -> Any:
        return dataclasses.replace(make_manifest("tflite", "int8", ""), scheme=scheme, **changes)

    return make


def fake(name: str, version: str = "2.14.0", **more: Any) -> FakeEngine:
    return FakeEngine(name, model_format="tflite", reported_version=version, **more)


def test_every_entry_has_a_reason_a_remedy_and_a_source() -> None:
    for problem in KNOWN_PROBLEMS:
        assert set(problem.engines) <= set(ENGINES)
        assert set(problem.schemes) <= set(get_args(Scheme))
        assert min(len(problem.what), len(problem.remedy), len(problem.source)) > 10
        assert problem.source.startswith("measured, ")


def test_what_answers_wrongly_is_refused_by_name(of: Callable[..., Any]) -> None:
    with pytest.raises(EngineFailed) as caught:
        check_fit("tflite", "2.14.0", of("dynamic"), ARM)
    assert str(caught.value) == (
        "tflite 2.14.0 cannot run dynamic Bundles: it has no FULLY_CONNECTED version 12, and its "
        "older dynamic-range kernels answer wrongly; install ai-edge-litert, or export "
        "weights-int8 or int8"
    )
    for scheme in ("float32", "float16", "weights-int8", "int8", "int16x8"):
        check_fit("tflite", "2.14.0", of(scheme), X86)
    for engine in ("litert", "tensorflow", "own"):
        check_fit(engine, "2.3.0", of("dynamic"), X86)
    for scheme in ("float32", "dynamic", "int16x8"):
        with pytest.raises(EngineFailed, match="makes int8 Bundles alone; export int8"):
            check_fit("tflite-micro", "0.dev2026", of(scheme))
    check_fit("tflite-micro", "0.dev2026", of("int8", minimum_runtime={"tflite": "99"}))


@pytest.mark.parametrize(
    ("engine", "scheme", "machine", "slow"),
    [
        ("tflite", "int8", X86, True),
        ("tflite", "int8", ARM, False),  # measured on x86-64 alone, and the only engine there
        ("tflite", "float32", X86, False),
        ("litert", "int8", X86, False),
        ("litert", "int16x8", X86, True),
        ("tensorflow", "int16x8", "AMD64", True),
        ("tflite-micro", "int8", ARM, True),
        ("onnxruntime", "int8", X86, False),
    ],
)
def test_what_is_slow_is_told_by_name(
    of: Callable[..., Any], engine: str, scheme: str, machine: str, slow: bool
) -> None:
    said = slowness(engine, of(scheme), machine)
    assert (said is not None) is slow
    assert said is None or said.startswith(f"{engine} ")


def test_auto_takes_the_first_that_is_installed_and_imports(
    only: Callable[..., None], make_manifest: Callable[..., Any]
) -> None:
    manifest = make_manifest("onnx", "float32", "")
    absent = FakeEngine("absent", installed=False)
    broken = FakeEngine("broken", import_error="numpy is too new")
    other = FakeEngine("other", model_format="tflite")
    only(absent, broken, other, FakeEngine("third"), FakeEngine("fourth"))
    assert select_engine("auto", manifest).name == "third"
    assert select_engine("fourth", manifest).name == "fourth"
    own = FakeEngine("own")
    assert select_engine(own, manifest) is own
    only(absent, broken)
    with pytest.raises(EngineMissing, match="broken does not import"):
        select_engine("auto", manifest)
    only(absent)
    for backend, words in (("auto", "no engine for"), ("absent", "'absent' for")):
        with pytest.raises(EngineMissing, match=rf"{words}.*smidgen-runtime\[onnx\]"):
            select_engine(backend, manifest)


def test_the_simulation_is_advised_by_its_own_name(
    only: Callable[..., None], of: Callable[..., Any]
) -> None:
    only(fake("tflite-micro", installed=False))
    with pytest.raises(EngineMissing, match=r"'tflite-micro' for .*: run `pip install tflite-mic"):
        select_engine("tflite-micro", of("int8"))


def test_auto_goes_on_to_the_next_that_fits(
    only: Callable[..., None], of: Callable[..., Any]
) -> None:
    asking = of("dynamic", minimum_runtime={"litert": "1.4.0", "tflite": "2.17.0"})
    new = fake("tensorflow", "2.21.0")
    only(fake("litert", "1.0.1"), fake("tflite"), new)
    assert select_engine("auto", asking) is new
    only(fake("litert", "1.4.0"), fake("tflite"), new)
    assert select_engine("auto", asking).name == "litert"
    only(fake("litert", "1.0.1"), fake("tflite"), fake("tensorflow", "2.16.1"))
    with pytest.raises(EngineFailed) as caught:
        select_engine("auto", asking)
    said = str(caught.value)
    for reason in ("litert 1.0.1 is too old", "tflite 2.14.0 cannot", "tensorflow 2.16.1 is too"):
        assert reason in said
    assert "\n" not in said
    with pytest.raises(EngineFailed, match=r"litert 1\.0\.1 is too old"):
        select_engine("litert", asking)


def test_a_refusal_weighs_more_than_a_broken_wheel(
    only: Callable[..., None], of: Callable[..., Any]
) -> None:
    broken = fake("litert", import_error="numpy is too new")
    only(broken)
    with pytest.raises(EngineMissing):
        select_engine("auto", of("dynamic"))
    only(broken, fake("tflite"))
    with pytest.raises(EngineFailed, match=r"numpy is too new.*; tflite 2\.14\.0 cannot"):
        select_engine("auto", of("dynamic"))


def test_auto_takes_slow_engines_last_and_warns(
    only: Callable[..., None], of: Callable[..., Any]
) -> None:
    micro, litert, fast = fake("tflite-micro"), fake("litert"), fake("own")
    only(micro, litert)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert select_engine("auto", of("int8")) is litert
    only(micro)
    with pytest.warns(SlowEngineWarning, match="tflite-micro is a simulation"):
        assert select_engine("auto", of("int8")) is micro
    if platform.machine() in ("x86_64", "AMD64"):
        only(litert, fast)
        assert select_engine("auto", of("int16x8")) is fast
        with pytest.warns(SlowEngineWarning, match="litert runs int16x8 about 50 times slower"):
            assert select_engine("litert", of("int16x8")) is litert


def test_bits_are_promised_for_one_case_alone(of: Callable[..., Any]) -> None:
    provenance = dataclasses.replace(
        of("int8").provenance, versions={"ai-edge-litert": "2.3.0", "machine": platform.machine()}
    )
    made, plain = of("int8", provenance=provenance), EngineOptions()
    assert not promises_bits("litert", "2.3.0", plain, made, "aarch64-of-another")
    assert promises_bits("litert", "2.3.0", plain, made)
    assert promises_bits("litert", "2.3.0", EngineOptions(4, ("xnnpack",)), made)
    assert not promises_bits("litert", "2.4.0", plain, made)
    assert not promises_bits("litert", "2.3.0", plain, of("int8"))  # made with who knows what
    assert not promises_bits("litert", "2.3.0", EngineOptions(1, ("no-xnnpack",)), made)
    assert not promises_bits("litert", "2.3.0", EngineOptions(1, ("edgetpu",)), made)
    for engine in ("tflite", "tensorflow", "tflite-micro", "onnxruntime"):
        assert not promises_bits(engine, "2.3.0", plain, made)
    for scheme in ("float32", "int16x8", "dynamic"):
        assert not promises_bits("litert", "2.3.0", plain, of(scheme, provenance=provenance))
    output = dataclasses.replace(made.output, dtype="float32")
    assert not promises_bits("litert", "2.3.0", plain, dataclasses.replace(made, output=output))


@pytest.mark.parametrize(
    ("words", "operator"),
    [
        ("Didn't find op for builtin opcode 'FC' version '12'. An\nolder", "FC version '12'"),
        ("Didn't find op for builtin opcode 'FC'", "FC"),
        ("Encountered unresolved custom op: own-op.\nSee instructions: https", "own-op"),
        ("Op builtin_code out of range: 250. Are you", "250"),
        ('In Node, ("", Foo, "", -1), Error No Op registered for Foo with domain_version', "Foo"),
        ("Fatal error: my.domain:Foo(-1) is not a registered function/op", "my.domain:Foo"),
        ("Could not find an implementation for Abs(13) node with name ''", "Abs(13)"),
    ],
)
def test_a_missing_operator_is_named(words: str, operator: str) -> None:
    said = str(failed("litert", "refused the model", RuntimeError(words)))
    assert said.startswith(f"litert refused the model: it has no operator {operator} (")
    assert "\n" not in said
    assert "no operator" not in str(failed("litert", "refused", RuntimeError("out of memory")))


@pytest.mark.parametrize(("fault", "operator"), [("custom", "own-op"), ("version", "version '99'")])
def test_litert_names_the_operator_that_it_lacks(
    of: Callable[..., Any], fault: str, operator: str
) -> None:
    pytest.importorskip("ai_edge_litert")
    flatbuffers = pytest.importorskip("flatbuffers")
    from ai_edge_litert import schema_py_generated as schema

    data = (HERE / "tiny-int8.tflite").read_bytes()
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    code = model.operatorCodes[0]
    if fault == "version":
        code.version = 99
    else:
        custom = schema.BuiltinOperator.CUSTOM
        code.builtinCode = code.deprecatedBuiltinCode = custom
        code.customCode = b"own-op"
        model.subgraphs[0].operators[0].builtinOptionsType = 0
        model.subgraphs[0].operators[0].builtinOptions = None
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    with pytest.raises(EngineFailed, match=f"litert refused the model: it has no .*{operator}"):
        ENGINES["litert"].open(bytes(builder.Output()), of("int8"), EngineOptions())


def test_onnxruntime_names_the_operator_that_it_lacks(make_manifest: Callable[..., Any]) -> None:
    pytest.importorskip("onnxruntime")
    helper = pytest.importorskip("onnx").helper
    ends = [helper.make_tensor_value_info(name, 1, [1, 4]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Foo", ["x"], ["y"])], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    manifest = make_manifest("onnx", "float32", "")
    with pytest.raises(EngineFailed, match="onnxruntime refused the model: it has no operator Foo"):
        ENGINES["onnxruntime"].open(model.SerializeToString(), manifest, EngineOptions())


def test_versions_come_from_the_package_or_the_folder_beside_it() -> None:
    from importlib import metadata

    for distribution, module in (("ai-edge-litert", "ai_edge_litert"), ("numpy", "numpy")):
        pytest.importorskip(module)
        assert installed_version(distribution, module) == metadata.version(distribution)
    assert installed_version("nothing-of-this-name", "nothing_of_this_name") == "unknown"
