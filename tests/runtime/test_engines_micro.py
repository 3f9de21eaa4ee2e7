"""tflite-micro, simulated: int8 Bundles in an arena that grows until they fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from smidgen.runtime import Classifier, EngineFailed
from smidgen.runtime.engine import EngineOptions
from smidgen.runtime.engines import ENGINES
from smidgen.runtime.errors import SlowEngineWarning
from smidgen.runtime.micro_engine import MicroEngine, fitting
from smidgen.runtime.selftest import selftest

MakeBundle = Callable[..., Path]


def test_the_tiny_model_answers_as_on_litert(
    make_bundle: MakeBundle, expected_scores: Callable[[Any], Any]
) -> None:
    pytest.importorskip("tflite_micro")
    pixels = np.random.default_rng(3).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    with pytest.warns(SlowEngineWarning, match="simulation"):
        classifier = Classifier(make_bundle("tflite", "int8"), backend="tflite-micro", threads=1)
    with classifier:
        scores = classifier.scores(pixels)
        one_by_one = np.concatenate([classifier.scores(picture[None]) for picture in pixels])
        assert selftest(classifier).passed
    np.testing.assert_array_equal(scores, one_by_one)
    assert np.abs(scores - expected_scores(pixels)).max() <= 1.5 / 256
    assert np.abs(scores - expected_scores(pixels[..., ::-1])).max() > 15 / 256  # BGR for RGB
    with pytest.raises(EngineFailed, match="closed"):
        classifier.scores(pixels)


def test_other_schemes_are_refused_before_the_first_picture(make_bundle: MakeBundle) -> None:
    pytest.importorskip("tflite_micro")
    with pytest.raises(EngineFailed, match=r"cannot run float32 Bundles: .*; export int8"):
        Classifier(make_bundle("tflite", "float32"), backend="tflite-micro", threads=1)


def test_the_arena_grows_until_the_model_fits() -> None:
    asked = []

    def needs(least: int) -> Any:
        def create(data: bytes, arena_size: int) -> str:
            asked.append(arena_size)
            if arena_size < least:
                raise RuntimeError("TFLM failed to allocate tensors")
            return data.decode()

        return create

    assert fitting("tflite-micro", needs(20 << 20), b"made") == "made"
    assert asked == [4 << 20, 8 << 20, 16 << 20, 32 << 20]
    with pytest.raises(EngineFailed, match=r"in 256 MiB .*standard error .TFLM failed to allocate"):
        fitting("tflite-micro", needs(1 << 40), b"")
    assert asked[-1] == 256 << 20


def test_what_it_does_not_have_is_refused(make_bundle: MakeBundle) -> None:
    pytest.importorskip("tflite_micro")
    engine = ENGINES["tflite-micro"]
    assert isinstance(engine, MicroEngine)
    manifest = Classifier(make_bundle("tflite", "int8"), threads=1).manifest
    for options in (EngineOptions(1, ("gpu",)), EngineOptions(1, (), ("CPU",))):
        with pytest.raises(EngineFailed, match=r"tflite-micro has no (delegates|execution)"):
            engine.open(b"", manifest, options)
