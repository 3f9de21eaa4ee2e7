"""Blending each image, and its target, with another one of the batch."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops, random

from smidgen.train.augment.draws import per_image
from smidgen.train.augment.erasing import rectangles
from smidgen.train.augment.geometry import with_count


class MixUpOrCutMix(keras.layers.Layer):  # type: ignore[misc]
    """Half of the images, by chance, are mixed up with their partner, the others cut and mixed.

    MixUp (Zhang et al. 2018, arXiv:1710.09412) takes a weighted mean of both, the weight drawn from
    Beta(alpha, alpha); the image itself has the larger one, so that none gets lost. CutMix (Yun et
    al. 2019, arXiv:1905.04899) puts a square of the partner into the image, its area uniform in
    0..1. The target is mixed in proportion to the pixels that came from each. The partner is the
    image before in the batch (batches come shuffled), so that one pass over the pixels does both.
    The identity outside training.
    """

    def __init__(
        self, batch_size: int, *, alpha: float = 0.2, cut_share: float = 0.5, seed: int, name: str
    ) -> None:
        """What is drawn.

        Args:
            batch_size: images per step, where the input does not say it.
            alpha: of MixUp's Beta distribution.
            cut_share: chance of CutMix for an image, 0..1; the others get MixUp.
            seed: of the draws.
            name: of the layer.
        """
        super().__init__(name=name, dtype="float32")
        # TensorFlow has no XLA kernel for the gamma distribution that a Beta is drawn by.
        self.supports_jit = keras.config.backend() != "tensorflow"
        self.seeds = keras.random.SeedGenerator(seed)
        self.batch_size, self.alpha, self.cut_share = batch_size, alpha, cut_share

    def call(self, inputs: tuple[Any, Any], training: bool = False) -> tuple[Any, Any]:
        """``(pixels, targets)``: ``(N, S, S, 3)`` and one-hot ``(N, C)``, float32; both mixed."""
        pixels, targets = inputs
        if not training:
            return pixels, targets
        pixels = with_count(pixels, self.batch_size)
        kept = self.kept(pixels)
        share = ops.mean(kept, axis=(1, 2))
        partners = ops.roll(pixels, 1, axis=0)
        return (
            partners + kept * (pixels - partners),
            share * targets + (1.0 - share) * ops.roll(targets, 1, axis=0),
        )

    def kept(self, pixels: Any) -> Any:
        """``(N, S, S, 1) float32`` in 0..1: how much of the image itself each pixel keeps."""
        shape = (pixels.shape[0], 1, 1, 1)
        drawn = random.beta(shape, self.alpha, self.alpha, dtype="float32", seed=self.seeds)
        most = ops.maximum(drawn, 1.0 - drawn)
        side = ops.sqrt(per_image(pixels, self.seeds, (0.0, 1.0)))
        is_outside = ops.logical_not(rectangles(pixels, self.seeds, side, side))
        is_cut = per_image(pixels, self.seeds, (0.0, 1.0)) < self.cut_share
        return ops.where(is_cut, ops.cast(is_outside, "float32"), most)

    def compute_output_shape(
        self, input_shape: tuple[tuple[int | None, ...], tuple[int | None, ...]]
    ) -> tuple[tuple[int | None, ...], tuple[int | None, ...]]:
        """As the inputs."""
        pixels_shape, targets_shape = input_shape
        return tuple(pixels_shape), tuple(targets_shape)
