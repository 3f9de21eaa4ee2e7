"""An int8 Bundle of the small network, made by the converter, and what made it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def twins(float_model) -> tuple[bytes, bytes]:
    """The float twin and an int8 file of the small network."""
    pytest.importorskip("tensorflow")
    from smidgen.export.calibration import choose
    from smidgen.export.formats.to_tflite import to_tflite_int8
    from smidgen.export.graphs.fold import fold_batch_norms
    from smidgen.export.quantization.twins import float_twin

    chosen = choose(
        float_model.calibration_pool, float_model.held_out, 20, float_model.preprocessing
    )
    folded = fold_batch_norms(float_model.load()).model
    normalization = float_model.normalization
    data = to_tflite_int8(folded, normalization, chosen, lambda _: None)
    return float_twin(folded, normalization), data


@pytest.fixture
def int8_bundle(tmp_path: Path, float_model, twins) -> Callable[..., Path]:
    """Writes the int8 Bundle; keyword arguments replace fields of its provenance."""
    from smidgen.export.formats.pack import pack
    from smidgen.runtime.manifest import Manifest, Provenance, TensorSpec

    def make(data: bytes | None = None, scheme: Any = "int8", **changes: Any) -> Path:
        origin: dict[str, Any] = {
            "created_utc": "",
            "backbone": "toy",
            "source": "toy run",
            "recipe_toml": "",
            "weights_sha256": float_model.weights_sha256,
            "data_sha256": float_model.data_sha256,
        }
        manifest = Manifest(
            name="toy-int8",
            model_format="tflite",
            scheme=scheme,
            labels=float_model.labels,
            preprocessing=float_model.preprocessing,
            input=TensorSpec("image", (1, 32, 32, 3), "uint8", "NHWC", 0.0, 255.0),
            output=TensorSpec("probabilities", (1, 4), "uint8", "NC", 0, 255 / 256, scale=1 / 256),
            provenance=Provenance(**{**origin, **changes}),
            payload_sha256="",
        )
        path = tmp_path / "toy-int8.tflite"
        path.write_bytes(pack(data or twins[1], manifest)[0])
        return path

    return make
