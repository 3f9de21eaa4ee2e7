"""The two TFLite files that quantization starts from: the same graph in float and in integers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from smidgen.export.calibration import Calibration
from smidgen.export.formats import to_tflite
from smidgen.export.graphs.deploy_graph import quantizable_graph
from smidgen.export.source import ChannelNormalization
from smidgen.export.tensorflow_backend import tf

_DRAFT_IMAGES = 4


def float_twin(model: Any, normalization: ChannelNormalization) -> bytes:
    """A float TFLite file with the operators of the int8 one.

    Args:
        model: normalised ``(N, H, W, 3) float32`` to logits, BatchNorm folded.
        normalization: of the model.

    Returns:
        A file: decoded pixels ``(1, H, W, 3) float32`` (``pixel_code``) to probabilities.

    Raises:
        ConversionError: the converter failed.
    """
    graph = quantizable_graph(model, normalization, batch=1)
    return to_tflite.run_converter(tf.lite.TFLiteConverter.from_keras_model(graph))


def integer_draft(
    model: Any, normalization: ChannelNormalization, calibration: Calibration
) -> bytes:
    """The converter's int8 file, with activation ranges from four images: a graph, not an answer.

    Raises:
        ConversionError: as ``to_tflite.to_tflite_int8``.
    """
    return to_tflite.to_tflite_int8(model, normalization, _First(calibration), lambda _: None)


class _First(Calibration):
    """The first few images of a calibration."""

    def __init__(self, whole: Calibration) -> None:
        super().__init__(whole.pictures, whole.preprocessing)

    def pixels(self) -> Iterator[Any]:
        """As ``Calibration.pixels``, fewer."""
        return islice(super().pixels(), _DRAFT_IMAGES)
