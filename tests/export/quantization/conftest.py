"""The two TFLite files of the small network, its calibration, and tools to run a file."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session")
def folded(float_model) -> Any:
    """The small network with its BatchNorms folded."""
    from smidgen.export.graphs.fold import fold_batch_norms

    return fold_batch_norms(float_model.load()).model


@pytest.fixture(scope="session")
def calibration(float_model) -> Any:
    """The 20 calibration pictures of the float model."""
    from smidgen.export.calibration import choose

    return choose(float_model.calibration_pool, float_model.held_out, 20, float_model.preprocessing)


@pytest.fixture(scope="session")
def twins(folded, float_model, calibration) -> tuple[bytes, bytes]:
    """The float twin and the converter's draft, as bytes."""
    from smidgen.export.quantization.twins import float_twin, integer_draft

    return (
        float_twin(folded, float_model.normalization),
        integer_draft(folded, float_model.normalization, calibration),
    )


@pytest.fixture
def models(twins) -> tuple[Any, Any]:
    """Both as ``ModelT`` that a test may change."""
    from smidgen.export.formats.tflite_file import read_model

    return read_model(twins[0]), read_model(twins[1])


@pytest.fixture(scope="session")
def held_out(float_model) -> np.ndarray:
    """The held-out pictures, ``(40, 32, 32, 3) uint8``."""
    from smidgen.export.pictures import pixel_batches

    return np.concatenate(list(pixel_batches(float_model.held_out, float_model.preprocessing, 16)))


@pytest.fixture(scope="session")
def with_changed() -> Callable[..., bytes]:
    """``with_changed(data, change)``: the file's bytes after ``change(model)``."""
    from smidgen.export.formats.tflite_file import read_model, write_model

    def call(data: bytes, change: Callable[[Any], None]) -> bytes:
        model = copy.deepcopy(read_model(data))
        change(model)
        return write_model(model)

    return call
