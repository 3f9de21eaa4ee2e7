"""Choosing an engine, refusing one, and the two real engines on the tiny models."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from smidgen.runtime import Classifier, EngineFailed, SmidgenError
from smidgen.runtime.compatibility import check_fit
from smidgen.runtime.engine import EngineOptions
from smidgen.runtime.engine_checks import MAX_THREADS, dequantize, stored_pixels
from smidgen.runtime.engines import ENGINES, install_advice, select_engine
from smidgen.runtime.fake import FakeEngine
from smidgen.runtime.manifest import TensorSpec

MakeBundle = Callable[..., Path]
CASES = [("tflite", "float32", 1e-6), ("tflite", "int8", 1.5 / 256), ("onnx", "float32", 1e-6)]
needs = {"tflite": "ai_edge_litert", "onnx": "onnxruntime"}


@pytest.fixture
def pixels() -> Any:
    """Five input tensors of different colours."""
    generator = np.random.default_rng(1)
    tint = np.linspace(0, 1, 15).reshape(5, 1, 1, 3)
    return (generator.integers(0, 256, (5, 8, 8, 3)) * tint).astype(np.uint8)


@pytest.mark.parametrize(("model_format", "scheme", "tolerance"), CASES)
def test_real_engines_compute_the_tiny_model(  # noqa: PLR0913, PLR0917  (fixtures)
    make_bundle: MakeBundle,
    expected_scores: Callable[[Any], Any],
    pixels: Any,
    model_format: str,
    scheme: str,
    tolerance: float,
) -> None:
    pytest.importorskip(needs[model_format])
    with Classifier(make_bundle(model_format, scheme), threads=2) as classifier:
        scores = classifier.scores(pixels)
        one_by_one = np.concatenate([classifier.scores(picture[None]) for picture in pixels])
    assert scores.dtype == np.float32
    assert scores.shape == (5, 3)
    np.testing.assert_array_equal(scores, one_by_one)
    assert np.abs(scores - expected_scores(pixels)).max() <= tolerance
    swapped = expected_scores(pixels[..., ::-1])  # planted fault: BGR for RGB
    assert np.abs(scores - swapped).max() > 10 * tolerance


@pytest.mark.parametrize("model_format", ["tflite", "onnx"])
def test_a_closed_classifier_says_so(
    make_bundle: MakeBundle, pixels: Any, model_format: str
) -> None:
    pytest.importorskip(needs[model_format])
    classifier = Classifier(make_bundle(model_format))
    classifier.close()
    classifier.close()
    with pytest.raises(EngineFailed, match="closed"):
        classifier.scores(pixels)


WRONG_TENSORS = {
    "output dtype": {"output": TensorSpec("p", (-1, 3), "int8", "NC", 0.0, 1.0)},
    "output rank": {"output": TensorSpec("p", (-1, 1, 3), "float32", "NC", 0.0, 1.0)},
}


@pytest.mark.parametrize("model_format", ["tflite", "onnx"])
@pytest.mark.parametrize("fault", WRONG_TENSORS)
def test_a_model_that_is_not_what_the_manifest_says(
    make_bundle: MakeBundle, model_format: str, fault: str
) -> None:
    pytest.importorskip(needs[model_format])
    path = make_bundle(model_format, **WRONG_TENSORS[fault])
    with pytest.raises(EngineFailed, match=r"the model's output is float32 .* manifest says"):
        Classifier(path)


@pytest.mark.parametrize(("scale", "zero_point"), [(1 / 255, 0), (1 / 256, 1), (0.0039, 0)])
def test_output_quantization_must_be_the_manifests(
    make_bundle: MakeBundle, scale: float, zero_point: int
) -> None:
    pytest.importorskip("ai_edge_litert")
    output = TensorSpec("p", (-1, 3), "uint8", "NC", 0.0, 1.0, scale, zero_point)
    with pytest.raises(EngineFailed, match=r"output scale 0.00390625, zero point 0 in the model"):
        Classifier(make_bundle("tflite", "int8", output=output))


@pytest.mark.parametrize("model_format", ["tflite", "onnx"])
def test_a_model_that_the_engine_refuses(make_bundle: MakeBundle, model_format: str) -> None:
    pytest.importorskip(needs[model_format])
    manifest = Classifier(make_bundle(model_format)).manifest
    engine = ENGINES["litert" if model_format == "tflite" else "onnxruntime"]
    with pytest.raises(EngineFailed, match="refused the model") as caught:
        engine.open(b"\x08\x08\x3a\x00" + bytes(64), manifest, EngineOptions())
    assert "\n" not in str(caught.value)


def test_dequantize() -> None:
    stored = np.array([[0, 10, 255]], np.uint8)
    np.testing.assert_array_equal(dequantize(stored, 0.5, 10), [[-5.0, 0.0, 122.5]])
    signed = np.array([[-128, 127]], np.int8)
    np.testing.assert_array_equal(dequantize(signed, 1 / 256, -128), [[0.0, 255 / 256]])
    real = np.array([[0.25]], np.float32)
    assert dequantize(real, 2.0, 3) is real


# --- choosing ----------------------------------------------------------------------------------


@pytest.fixture
def manifest(make_manifest: Callable[..., Any]) -> Any:
    return make_manifest("onnx", "float32", "")


def test_an_unknown_backend_names_the_nearest(manifest: Any) -> None:
    with pytest.raises(EngineFailed, match=r"did you mean 'onnxruntime'\? known backends: auto, "):
        select_engine("onnx-runtime", manifest)
    with pytest.raises(EngineFailed, match=r"'litert' runs \.tflite files, this Bundle is \.onnx"):
        select_engine("litert", manifest)


@pytest.mark.parametrize(
    ("model_format", "python", "system", "machine", "words"),
    [
        ("tflite", (3, 9), "linux", "aarch64", "smidgen-runtime[litert]"),
        ("tflite", (3, 13), "linux", "x86_64", "smidgen-runtime[litert]"),
        ("tflite", (3, 11), "linux", "armv7l", '"smidgen-runtime[tflite]" "numpy<2"'),
        ("tflite", (3, 13), "linux", "armv7l", "no TensorFlow Lite wheel exists"),
        ("onnx", (3, 13), "darwin", "arm64", "smidgen-runtime[onnx]"),
        ("onnx", (3, 11), "linux", "armv7l", "use the .tflite Bundle"),
    ],
)
def test_advice_names_wheels_that_exist(
    model_format: Any, python: tuple[int, int], system: str, machine: str, words: str
) -> None:
    advice = install_advice(model_format, python, system, machine)
    assert words in advice
    assert f"Python {python[0]}.{python[1]} on {system} {machine}" in advice


@pytest.mark.parametrize(
    ("version", "minimum", "accepted"),
    [
        ("2.13.0", "2.13.0", True),
        ("2.13", "2.13.0", True),
        ("2.13.1", "2.13", True),
        ("2.9.0", "2.13.0", False),
        ("1.17.0rc1", "1.17", True),
        ("unknown", "2.13.0", True),
        ("2.0", "not a version", True),
    ],
)
def test_minimum_runtime(manifest: Any, version: str, minimum: str, accepted: bool) -> None:
    asking = dataclasses.replace(manifest, minimum_runtime={"tflite": minimum})
    check_fit("litert", version, asking)  # another numbering: not comparable
    check_fit("own", version, asking)
    for engine in ("tflite", "tensorflow"):
        if accepted:
            check_fit(engine, version, asking)
            continue
        with pytest.raises(EngineFailed, match=f"{version} is too old .* needs {minimum}"):
            check_fit(engine, version, asking)


def test_the_real_engine_is_checked_too(make_bundle: MakeBundle) -> None:
    pytest.importorskip("onnxruntime")
    path = make_bundle("onnx", minimum_runtime={"onnxruntime": "99.0"})
    with pytest.raises(EngineFailed, match=r"too old for this Bundle, which needs 99.0"):
        Classifier(path)


@pytest.mark.parametrize("threads", [0, -1, MAX_THREADS + 1, 1.5, True, "2"])
def test_threads_are_checked(make_bundle: MakeBundle, threads: Any) -> None:
    with pytest.raises(SmidgenError, match="threads = "):
        Classifier(make_bundle("onnx"), backend=FakeEngine(), threads=threads)


def test_pixels_are_stored_as_the_model_takes_them() -> None:
    pixels = np.array([[0, 127, 128, 255]], np.uint8)
    assert stored_pixels(pixels, "uint8") is pixels
    assert stored_pixels(pixels, "int8").tolist() == [[-128, -1, 0, 127]]
    assert stored_pixels(pixels, "int8").dtype == np.int8
    assert stored_pixels(pixels, "float32").tolist() == [[0.0, 127.0, 128.0, 255.0]]
