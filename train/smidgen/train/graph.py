"""The training graph: uint8 pixels -> augmentation -> normalisation -> network -> logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from smidgen.train.models.backbones import Normalization
from smidgen.train.recipe import ScheduleRecipe

_WARM_UP_SHARE = 0.1
_FINAL_RATE_SHARE = 0.01


@dataclass(frozen=True)
class Stage:
    """One compiled piece of training; ``trained_blocks`` None means every layer."""

    name: str
    epochs: int
    learning_rate: float
    trained_blocks: int | None


def stages(schedule: ScheduleRecipe) -> tuple[Stage, ...]:
    """The stages that have epochs, in order."""
    head = Stage(
        "head", schedule.head_epochs, schedule.head_learning_rate, schedule.unfrozen_blocks
    )
    full = Stage("full", schedule.full_epochs, schedule.full_learning_rate, None)
    return tuple(stage for stage in (head, full) if stage.epochs)


def training_graph(network: Any, normalization: Normalization, schedule: ScheduleRecipe) -> Any:
    """A ``keras.Model`` from ``(N, H, W, 3) uint8`` RGB 0..255 to ``(N, classes)`` logits.

    Augmentation works in training calls only; it is seeded by ``schedule.seed``.
    """
    pixels = keras.Input(network.input_shape[1:], name="pixels", dtype="uint8")
    x = keras.layers.Rescaling(1.0, name="to_float")(pixels)
    for layer in _augmentation(schedule):
        x = layer(x)
    scale, offset = 1.0 / normalization.std, -normalization.mean / normalization.std
    x = keras.layers.Rescaling(scale, offset, name="normalize")(x)
    return keras.Model(pixels, network(x), name="training")


def compile_stage(
    graph: Any, network: Any, stage: Stage, steps_per_epoch: int, schedule: ScheduleRecipe
) -> None:
    """Choose the layers that train, with AdamW under a warm-up and a cosine decay.

    The BatchNorm layers of frozen blocks work with their stored statistics.
    """
    _freeze(network, stage.trained_blocks)
    steps = steps_per_epoch * stage.epochs
    warm_up = max(1, int(_WARM_UP_SHARE * steps))
    rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=stage.learning_rate / warm_up,
        decay_steps=max(1, steps - warm_up),
        alpha=_FINAL_RATE_SHARE,
        warmup_target=stage.learning_rate,
        warmup_steps=warm_up,
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=schedule.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    graph.compile(
        optimizer=optimizer,
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=schedule.label_smoothing
        ),
        metrics=[keras.metrics.CategoricalAccuracy(name="top1")],
    )
    optimizer.build(graph.trainable_variables)


def _freeze(network: Any, trained_blocks: int | None) -> None:
    """Let the last ``trained_blocks`` blocks and everything behind them train; None: everything."""
    blocks = sorted({block for layer in network.layers if (block := _block_of(layer))})
    if trained_blocks is None or trained_blocks > len(blocks):
        trained, is_trained = set(blocks), True
    else:
        trained, is_trained = set(blocks[len(blocks) - trained_blocks :]), False
    seen_blocks = False
    for layer in network.layers:
        block = _block_of(layer)
        seen_blocks = seen_blocks or block is not None
        if block is not None:
            layer.trainable = block in trained
        else:
            layer.trainable = is_trained or seen_blocks


def _block_of(layer: Any) -> str | None:
    """``block_07`` of ``block_07_project_bn``; None for stem and head."""
    name = str(layer.name)
    return name[: len("block_00")] if name.startswith("block_") else None


def _augmentation(schedule: ScheduleRecipe) -> list[Any]:
    """Keras layers on float pixels 0..255; identity outside training."""
    seed = schedule.seed
    layers: list[Any] = []
    if schedule.horizontal_flip:
        layers.append(keras.layers.RandomFlip("horizontal", seed=seed + 1))
    if schedule.augmentation == "standard":
        layers += [
            keras.layers.RandomTranslation(0.1, 0.1, fill_mode="nearest", seed=seed + 2),
            keras.layers.RandomZoom((-0.2, 0.1), fill_mode="nearest", seed=seed + 3),
            keras.layers.RandomRotation(0.03, fill_mode="nearest", seed=seed + 4),
            keras.layers.RandomBrightness(0.15, seed=seed + 5),
            keras.layers.RandomContrast(0.2, seed=seed + 6),
        ]
    return layers
