"""Everything that decides what export makes of a float model: the ``[export]`` recipe table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from smidgen.runtime.errors import SchemaError
from smidgen.runtime.schema import setting

Format = Literal["tflite", "onnx"]
Scheme = Literal["float32", "int8"]


@dataclass(frozen=True)
class ExportRecipe:
    """Which files to make, how to quantize them, and how much accuracy they may lose.

    The defaults make four Bundles: ``float32`` and ``int8``, each as ``.tflite`` and ``.onnx``. On
    64 px EfficientNet-Lite0 with 1,250 held-out images that takes under three minutes on two cores.
    """

    formats: tuple[Format, ...] = setting(("tflite", "onnx"), help="model file formats to write")
    schemes: tuple[Scheme, ...] = setting(
        ("float32", "int8"), help="number formats: float32, or int8 weights and activations"
    )
    calibration_images: int = setting(
        200,
        help="training images that set the int8 activation ranges, spread over the classes",
        low=10,
        high=10_000,
    )
    max_drop: float = setting(
        1.0,
        help="percentage points of top-1 that a file may lose against the float model",
        low=0,
        high=100,
    )
    undecided: Literal["warn", "fail"] = setting(
        "warn", help="what to do where the held-out images are too few to tell pass from fail"
    )
    name: str = setting("", help="stem of the file names; empty: the name of the Run or model")

    def __post_init__(self) -> None:
        """Raises SchemaError for an empty or repeated list, or a name that is not a file stem."""
        for key, values in (("formats", self.formats), ("schemes", self.schemes)):
            if not values or len(set(values)) != len(values):
                raise SchemaError(
                    f"export.{key} = {list(values)}: expected at least one choice, each named once"
                )
        if "/" in self.name or "\\" in self.name or self.name.startswith("."):
            raise SchemaError(f"export.name = {self.name!r}: expected a file name without folders")
