"""TFLiteConverter with its defaults: per-channel weights, min-max ranges."""

from __future__ import annotations

from pathlib import Path

from smidgen.bench.quantization.task import Task, work
from smidgen.export.tensorflow_backend import keras, tf


def quantize(task: Task) -> bytes:
    """Full int8 as TensorFlow's guide has it, float32 at both ends."""
    model = keras.models.load_model(Path(task.keras), compile=False)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image] for image in task.calibration())
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return bytes(converter.convert())


if __name__ == "__main__":
    work(quantize, ("tensorflow",))
