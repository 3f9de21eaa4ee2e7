"""The network of tests that train in seconds. Keras' backend must be chosen before the call."""

from __future__ import annotations

from typing import Any

SIDE = 64


def tiny_network(classes: int) -> Any:
    """Two blocks with the layer names, batch norm and dropout of the real ones."""
    import keras

    image = keras.Input((SIDE, SIDE, 3), name="image")
    x = keras.layers.Conv2D(4, 3, 4, name="stem_conv")(image)
    for index in range(2):
        name = f"block_{index:02d}"
        x = keras.layers.Conv2D(6, 3, 2, use_bias=False, name=f"{name}_conv")(x)
        x = keras.layers.BatchNormalization(name=f"{name}_bn", momentum=0.8)(x)
        x = keras.layers.ReLU(6.0, name=f"{name}_relu6")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dropout(0.2, name="dropout")(x)
    return keras.Model(image, keras.layers.Dense(classes, name="logits")(x))
