"""Writes tiny-float32.tflite and tiny-int8.tflite, which the tests wrap into Bundles.

    python tests/runtime/make_tiny_tflite.py        (needs tensorflow; about 20 s)

Input ``(1, 8, 8, 3) uint8``, output three probabilities ``softmax(4 * mean((x - 127) / 128))``,
one per colour channel: the tests compute the same in numpy. The int8 file takes uint8 pixels
through scale 1/128 and zero point 127 and gives uint8 probabilities.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf

SIDE = 8
GAIN = 4.0


class Tiny(tf.Module):
    """The mean of each channel, times GAIN, through softmax."""

    @tf.function(input_signature=[tf.TensorSpec((1, SIDE, SIDE, 3), tf.uint8, name="image")])
    def from_pixels(self, image: tf.Tensor) -> tf.Tensor:
        """From uint8 pixels, normalisation inside."""
        return self.normalized((tf.cast(image, tf.float32) - 127.0) / 128.0)

    @tf.function(input_signature=[tf.TensorSpec((1, SIDE, SIDE, 3), tf.float32, name="image")])
    def normalized(self, image: tf.Tensor) -> tf.Tensor:
        """From floats in [-127/128, 1]."""
        means = tf.reduce_mean(image, axis=(1, 2))
        return tf.nn.softmax(tf.matmul(means, GAIN * tf.eye(3)))


def convert(
    function: tf.types.experimental.ConcreteFunction, module: Tiny
) -> tf.lite.TFLiteConverter:
    """A converter for one concrete function of ``module``."""
    return tf.lite.TFLiteConverter.from_concrete_functions([function], module)


def main() -> None:
    """Write both files beside this script."""
    folder = Path(__file__).parent
    module = Tiny()
    float_file = convert(module.from_pixels.get_concrete_function(), module).convert()
    (folder / "tiny-float32.tflite").write_bytes(float_file)

    generator = np.random.default_rng(0)
    converter = convert(module.normalized.get_concrete_function(), module)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.uint8

    def pictures() -> object:
        for value in [0, 255, *range(8, 248, 16)]:
            pixels = (
                generator.integers(0, 256, (1, SIDE, SIDE, 3))
                if value % 3
                else np.full((1, SIDE, SIDE, 3), value)
            )
            yield [((pixels - 127.0) / 128.0).astype(np.float32)]

    converter.representative_dataset = pictures
    (folder / "tiny-int8.tflite").write_bytes(converter.convert())


if __name__ == "__main__":
    main()
