"""JPEG's loss: the steps of a baseline encoder and decoder that change pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops, random

from smidgen.train.augment.draws import in_range

# ITU-T T.81 (1992), tables K.1 and K.2.
LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)
CHROMINANCE = np.full((8, 8), 99, np.float32)
CHROMINANCE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

# Rec. ITU-T T.871 (JFIF): RGB 0..255 -> Y 0..255 and Cb, Cr around 0.
_TO_YCC = np.array(
    [
        [0.299, 0.587, 0.114],
        [-0.168735892, -0.331264108, 0.5],
        [0.5, -0.418687589, -0.081312411],
    ]
)


def _dct() -> np.ndarray:
    """The 64 x 64 matrix of the two-dimensional DCT-II of a flattened 8 x 8 block, orthonormal."""
    k, x = np.mgrid[:8, :8]
    one = np.cos((2 * x + 1) * k * np.pi / 16) * np.where(k == 0, np.sqrt(1 / 8), 0.5)
    both: np.ndarray = np.kron(one, one).astype(np.float32)
    return both


@dataclass(frozen=True)
class JpegCompression:
    """What a JPEG file of a whole ``qualities`` (1..100, both ends included) leaves of an image.

    8 x 8 DCT, quantized with the tables of T.81 Annex K, scaled with the quality as libjpeg does,
    chroma at half the resolution (4:2:0), enlarged by libjpeg's triangle filter.
    """

    qualities: tuple[int, int] = (60, 80)

    def __call__(self, pixels: Any, seeds: Any) -> Any:
        """One quality per image."""
        low, high = self.qualities
        quality = random.randint((pixels.shape[0], 1), low, high + 1, dtype="int32", seed=seeds)
        return compressed(pixels, ops.cast(quality, "float32"))


def compressed(pixels: Any, quality: Any) -> Any:
    """``(n, S, S, 3)`` pixels after compression with ``quality``, ``(n, 1) float32``."""
    count, height, width, _ = pixels.shape
    full = _edge_padded(pixels, -height % 16, -width % 16)
    ycc = ops.round(ops.matmul(full, ops.convert_to_tensor(_TO_YCC.T, "float32")))
    rows, columns = ycc.shape[1], ycc.shape[2]
    luma = _quantized(ycc[..., 0] - 128.0, _steps(LUMINANCE, quality)) + 128.0
    halves = ops.reshape(ycc[..., 1:], (count, rows // 2, 2, columns // 2, 2, 2))
    # libjpeg rounds these means down and up in turn, so that they have no bias.
    bias = 1.0 + np.arange(columns // 2, dtype=np.float32)[:, None] % 2
    chroma = ops.floor((ops.sum(halves, axis=(2, 4)) + bias) / 4.0)
    steps = _steps(CHROMINANCE, quality)
    planes = [_quantized(chroma[..., i], steps) for i in range(2)]
    chroma = ops.image.resize(
        ops.stack(planes, axis=-1), (rows, columns), "bilinear", data_format="channels_last"
    )
    ycc = ops.concatenate([ops.expand_dims(luma, -1), chroma], axis=-1)
    rgb = ops.matmul(ycc, ops.convert_to_tensor(np.linalg.inv(_TO_YCC).T, "float32"))
    return in_range(ops.round(rgb[:, :height, :width]))


def _steps(table: np.ndarray, quality: Any) -> Any:
    """Quantization steps ``(n, 1, 64)`` of a quality, by libjpeg's rule (jpeg_quality_scaling)."""
    percent = ops.where(quality < 50.0, ops.floor(5000.0 / quality), 200.0 - 2.0 * quality)
    steps = ops.floor((percent * table.reshape(1, 64) + 50.0) / 100.0)
    return ops.expand_dims(ops.clip(steps, 1.0, 255.0), 1)


def _quantized(plane: Any, steps: Any) -> Any:
    """A plane ``(n, H, W)`` around 0 after its blocks' DCT was rounded to multiples of steps."""
    count, height, width = plane.shape
    blocks = ops.reshape(plane, (count, height // 8, 8, width // 8, 8))
    blocks = ops.reshape(ops.transpose(blocks, (0, 1, 3, 2, 4)), (count, -1, 64))
    dct = ops.convert_to_tensor(_dct())
    kept = ops.round(ops.matmul(blocks, ops.transpose(dct)) / steps) * steps
    blocks = ops.reshape(ops.matmul(kept, dct), (count, height // 8, width // 8, 8, 8))
    plane = ops.reshape(ops.transpose(blocks, (0, 1, 3, 2, 4)), (count, height, width))
    return ops.clip(ops.round(plane), -128.0, 127.0)


def _edge_padded(pixels: Any, below: int, right: int) -> Any:
    """Rows and columns appended by repeating the last ones, as libjpeg fills its last blocks."""
    if below:
        pixels = ops.concatenate([pixels, ops.repeat(pixels[:, -1:], below, axis=1)], axis=1)
    if right:
        pixels = ops.concatenate([pixels, ops.repeat(pixels[:, :, -1:], right, axis=2)], axis=2)
    return pixels
