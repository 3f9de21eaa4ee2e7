"""The golden sample: passes where it should, and every stage can fail."""

from __future__ import annotations

import base64
import dataclasses
import io
import platform
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from smidgen.runtime import Bundle, Classifier, Preprocessing, SelfTestFailed, selftest
from smidgen.runtime.fake import FakeEngine, brightness_scores
from smidgen.runtime.preprocessing import load_pixels
from smidgen.runtime.selftest import MAX_PNG_BYTES, examine, golden_png, make_golden

Image = pytest.importorskip("PIL.Image")
MakeBundle = Callable[..., Path]
SIZE = Preprocessing(width=8, height=8)
LABELS = ("red", "grün", "blue")


def three(pixels: Any) -> Any:
    return brightness_scores(pixels, 3)


@pytest.fixture
def golden(photo_png: bytes) -> Any:
    return make_golden(photo_png, SIZE, three, LABELS, 0.01)


@pytest.mark.parametrize(
    ("model_format", "scheme"), [("tflite", "float32"), ("tflite", "int8"), ("onnx", "float32")]
)
def test_real_engines_pass(make_bundle: MakeBundle, model_format: str, scheme: str) -> None:
    pytest.importorskip("ai_edge_litert" if model_format == "tflite" else "onnxruntime")
    with Classifier(make_bundle(model_format, scheme)) as classifier:
        report = selftest(classifier)
    assert [stage.name for stage in report.stages] == ["image", "tensor", "scores", "label"]
    assert report.passed
    assert report.stages[1].difference == 0.0
    assert report.stages[2].difference <= report.stages[2].tolerance


def examined(make_bundle: MakeBundle, golden: Any, **engine: Any) -> Any:
    path = make_bundle("onnx", golden=golden)
    return examine(Classifier(path, backend=FakeEngine(**engine)))


def failed_stages(report: Any) -> list[str]:
    return [stage.name for stage in report.stages if not stage.passed]


def test_a_tensor_within_its_tolerance_passes(make_bundle: MakeBundle, golden: Any) -> None:
    probe = bytearray(base64.b64decode(golden.tensor_probe))
    for change, passed in ((2, True), (3, False)):
        moved = probe.copy()
        moved[5] = moved[5] - change if moved[5] > 128 else moved[5] + change
        other = dataclasses.replace(
            golden, tensor_sha256="0" * 64, tensor_probe=base64.b64encode(moved).decode()
        )
        report = examined(make_bundle, other)
        assert report.stages[1].difference == change
        assert report.passed is passed


def test_every_stage_can_fail(make_bundle: MakeBundle, golden: Any) -> None:
    assert examined(make_bundle, golden).passed
    faults = {
        "image": dataclasses.replace(golden, image_png=base64.b64encode(b"junk").decode()),
        "tensor": dataclasses.replace(golden, tensor_sha256="0" * 64, tensor_probe="AAAA"),
        "scores": dataclasses.replace(golden, scores=(0.88, 0.07, 0.05)),
        "label": dataclasses.replace(golden, label="blue"),
    }
    for stage, other in faults.items():
        report = examined(make_bundle, other)
        assert failed_stages(report) == [stage]
        assert not report.passed
        with pytest.raises(SelfTestFailed, match=f"stage '{stage}' failed on fake 1.2.3"):
            selftest(Classifier(make_bundle("onnx", golden=other), backend=FakeEngine()))
    for name in ("image_png", "tensor_probe"):
        for text in ("not base64!", "ü"):
            other = dataclasses.replace(golden, **{name: text, "tensor_sha256": ""})
            assert not examined(make_bundle, other).passed


def test_a_swapped_channel_is_found(make_bundle: MakeBundle) -> None:
    pytest.importorskip("onnxruntime")
    path = make_bundle("onnx")
    classifier = Classifier(path)
    assert examine(classifier).passed
    session = classifier._session
    swapping = FakeEngine(scores=lambda pixels, _: session.run(pixels[..., ::-1].copy()))
    assert failed_stages(examine(Classifier(path, backend=swapping))) == ["scores", "label"]


def test_bits_where_the_engine_promises_them(
    make_bundle: MakeBundle, make_manifest: Callable[..., Any], photo_png: bytes
) -> None:
    """One step of 1/256 is within the tolerance, and fails where equal bits are promised."""
    stored: Any = np.array([[200, 40, 16]], np.float32) / 256
    golden = make_golden(photo_png, SIZE, lambda _: stored, LABELS, 2 / 256)
    versions = {"ai-edge-litert": "2.3.0", "machine": platform.machine()}
    provenance = dataclasses.replace(
        make_manifest("tflite", "int8", "").provenance, versions=versions
    )
    path = make_bundle("tflite", "int8", golden=golden, provenance=provenance)
    for version, steps, passed, tolerance in (
        ("2.3.0", 0, True, 0.0),
        ("2.3.0", 1, False, 0.0),
        ("2.4.0", 1, True, 2 / 256),
        ("2.4.0", 3, False, 2 / 256),
    ):
        answer = stored + np.array([[steps, 0, 0]], np.float32) / 256
        engine = FakeEngine(
            "litert",
            "tflite",
            scores=lambda *_, answer=answer: answer,
            reported_version=version,
        )
        report = examine(Classifier(path, backend=engine, threads=1))
        assert report.passed is passed
        assert report.stages[2].tolerance == tolerance
        assert report.stages[2].difference == pytest.approx(steps / 256, abs=1e-6)
        assert ("to the bit" in report.stages[2].detail) is (tolerance == 0)
        delegated = Classifier(path, backend=engine, threads=1, delegates=("edgetpu",))
        assert examine(delegated).stages[2].tolerance == 2 / 256


def test_an_engine_that_fails_is_a_failed_stage(make_bundle: MakeBundle, golden: Any) -> None:
    report = examined(make_bundle, golden, scores=lambda *_: np.full((1, 3), np.nan, np.float32))
    assert failed_stages(report) == ["scores"]
    assert not report.passed


def test_no_golden_sample(make_bundle: MakeBundle) -> None:
    path = make_bundle("onnx", golden=None)
    with pytest.raises(SelfTestFailed, match="no golden sample inside"):
        selftest(Classifier(path, backend=FakeEngine()))


@pytest.mark.parametrize("shape", [(600, 800), (30, 40), (9, 3000), (3000, 2)])
def test_make_golden_keeps_the_picture_small(shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "PNG", exif=exif, icc_profile=b"x" * 90_000)
    size = Preprocessing(width=224, height=224, crop_fraction=0.875)
    golden = make_golden(stream.getvalue(), size, three, LABELS, 0.01)
    png = golden_png(golden)
    assert len(png) <= MAX_PNG_BYTES
    small = Image.open(io.BytesIO(png))
    assert small.mode == "RGB"
    assert dict(small.getexif()) == {}
    assert max(small.size) <= 256 and min(small.size) <= 128
    assert (small.width < small.height) == (shape[1] > shape[0])  # turned by the orientation
    probe = np.frombuffer(base64.b64decode(golden.tensor_probe), np.uint8)
    stride = golden.tensor_stride
    expected = load_pixels(png, size)[::stride, ::stride]
    np.testing.assert_array_equal(probe, expected.ravel())
    assert stride == 14


def test_the_golden_sample_survives_the_file(make_bundle: MakeBundle, golden: Any) -> None:
    assert Bundle.open(make_bundle("onnx", golden=golden)).manifest.golden == golden
