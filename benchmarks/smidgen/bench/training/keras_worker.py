"""Plain ``keras fit`` as a contender: the tutorial's way, with our network."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from smidgen.bench.loaders import pillow_square
from smidgen.bench.training.gate import Gate, Over, standard_gate
from smidgen.bench.training.setting import (
    BATCH_CLASSES,
    LABEL_SMOOTHING,
    LEARNING_RATE,
    WEIGHT_DECAY,
    Setting,
)
from smidgen.train.backend import select_backend
from smidgen.train.models.facts import normalization_of
from smidgen.train.recipe import ModelRecipe


def classes_of(folder: Path) -> list[str]:
    """The class folders of ``folder``."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def one_batch(setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Random pixels ``(N, S, S, 3) uint8`` and one-hot targets ``(N, C) float32``."""
    count, side = setting.batch_size, setting.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    return pixels, np.eye(BATCH_CLASSES, dtype=np.float32)[np.arange(count) % BATCH_CLASSES]


def dataset(setting: Setting) -> Any:
    """What ``fit`` reads, without end."""
    import keras

    if keras.config.backend() != "tensorflow":
        return _without_tensorflow(setting)
    import tensorflow as tf

    if setting.source == "batch":
        return tf.data.Dataset.from_tensors(one_batch(setting)).repeat()
    images = keras.utils.image_dataset_from_directory(
        setting.folder,
        label_mode="categorical",
        batch_size=setting.batch_size,
        image_size=(setting.image_size, setting.image_size),
        crop_to_aspect_ratio=True,
        seed=0,
        verbose=False,
    )
    flip = keras.layers.RandomFlip("horizontal", seed=0)
    augmented = images.repeat().map(
        lambda pixels, labels: (flip(pixels, training=True), labels),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return augmented.prefetch(tf.data.AUTOTUNE)


def _without_tensorflow(setting: Setting) -> Any:
    """``keras.utils.PyDataset`` with Pillow, or a generator of one batch."""
    import keras

    if setting.source == "batch":

        def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            batch = one_batch(setting)
            while True:
                yield batch

        return batches()
    folder, size, side = Path(setting.folder), setting.batch_size, setting.image_size
    classes = classes_of(folder)
    paths = sorted(path for path in folder.glob("*/*") if path.is_file())
    order = np.random.default_rng(0).permutation(len(paths))
    targets = np.eye(len(classes), dtype=np.float32)

    class Photos(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
        @property
        def num_batches(self) -> None:
            """No end: Keras would shuffle a list of all batches."""

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            chosen = [paths[order[n % len(paths)]] for n in range(index * size, (index + 1) * size)]
            pixels = np.stack([pillow_square(str(path), side) for path in chosen])
            flipped = np.random.default_rng(index).random(size) < 0.5
            pixels[flipped] = pixels[flipped, :, ::-1]
            return pixels, targets[[classes.index(path.parent.name) for path in chosen]]

    return Photos(workers=setting.threads, use_multiprocessing=False)


def model(setting: Setting) -> Any:
    """EfficientNet-Lite0 from our builder behind a ``Rescaling``, not compiled yet."""
    import keras

    from smidgen.train.models.network import build

    if setting.precision == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    reads_files = setting.source == "files"
    classes = len(classes_of(Path(setting.folder))) if reads_files else BATCH_CLASSES
    how = normalization_of(ModelRecipe())
    network = build(ModelRecipe(), classes, setting.image_size)
    if setting.stage == "head":
        for layer in network.layers:
            layer.trainable = layer.name == "logits"
    pixels = keras.Input(network.input_shape[1:])
    x = keras.layers.Rescaling(list(how.scale), list(how.offset))(pixels)
    return keras.Model(pixels, keras.layers.Activation("linear", dtype="float32")(network(x)))


def fit(setting: Setting, gate: Gate) -> None:
    """Train ``setting`` until the gate says that it is over (raises Over)."""
    select_backend(setting.backend)
    import keras

    class AtTheGate(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
            gate.step(setting.batch_size, lambda: float(logs["loss"]))

    network, images = model(setting), dataset(setting)
    gate.built({"keras": keras.__version__})
    network.compile(
        optimizer=keras.optimizers.AdamW(LEARNING_RATE, weight_decay=WEIGHT_DECAY),
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=LABEL_SMOOTHING
        ),
        metrics=["accuracy"],
        jit_compile="auto" if setting.compiled else False,
    )
    network.fit(images, steps_per_epoch=10**9, verbose=0, callbacks=[AtTheGate()])


def main() -> None:
    """Train the setting in the first argument, through standard input and output."""
    try:
        fit(Setting.from_json(sys.argv[1]), standard_gate())
    except Over:
        return


if __name__ == "__main__":
    main()
