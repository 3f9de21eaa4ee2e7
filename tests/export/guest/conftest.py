"""A workshop whose tuner trains for a few real steps on random pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest


class StepTuner:
    """A ``Tuner`` that trains a subject by plain gradient steps towards random labels."""

    def __init__(self, steps: int, rate: float = 1e-3) -> None:
        random = np.random.default_rng(0)
        self.pixels = random.integers(0, 256, (16, 4, 4, 3)).repeat(8, 1).repeat(8, 2)
        self.inputs = ((self.pixels - 127) / 128).astype(np.float32)
        self.labels = random.integers(0, 4, 16)
        self.steps, self.rate = steps, rate
        self.wishes: list[Any] = []

    def tune(self, subject: Any, wish: Any) -> float:
        """Gradient steps on all images; every variable that may be trained is."""
        import tensorflow as tf

        network = subject.copied(subject.network, "float32")
        self.wishes.append(wish)

        @tf.function(autograph=False)
        def step() -> Any:
            values = [variable.value for variable in network.trainable_variables]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(values)
                logits = network(tf.constant(self.inputs), training=True)
                loss = tf.reduce_mean(
                    tf.nn.sparse_softmax_cross_entropy_with_logits(self.labels, logits)
                )
            gradients = tape.gradient(loss, values)
            for variable, gradient in zip(network.trainable_variables, gradients, strict=True):
                variable.assign(variable.value - self.rate * tf.math.l2_normalize(gradient))
            return loss

        self.losses = []
        for number in range(self.steps_of(wish.plan.epochs)):
            subject.before_step(number)
            self.losses.append(float(step()))
        return 0.5

    def validation_top1(self, network: Any) -> float:
        """Share of the labels that are answered."""
        return float(np.mean(np.asarray(network(self.inputs)).argmax(1) == self.labels))

    def batches(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The first of them."""
        return self.pixels[:count].astype(np.uint8), self.labels[:count]

    def steps_of(self, epochs: int) -> int:
        """As many to each epoch."""
        return self.steps * epochs


@pytest.fixture
def workshop(float_model: Any, tmp_path: Path) -> Callable[..., Any]:
    """``workshop(steps, rate)``: of the small network, with a tuner of as many steps to an epoch;
    each step moves every variable by ``rate``."""
    from smidgen.export.calibration import choose
    from smidgen.export.workshop import Workshop
    from smidgen.train.progress import SilentProgress

    def make(steps: int, rate: float = 1e-3) -> Any:
        pool, held_out = float_model.calibration_pool, float_model.held_out
        calibration = choose(pool, held_out, 20, float_model.preprocessing)
        return Workshop(
            float_model, calibration, StepTuner(steps, rate), SilentProgress(), tmp_path
        )

    return make


def kernels(network: Any) -> dict[str, np.ndarray]:
    """The kernels of convolutions and dense layers, by layer, without depthwise ones."""
    return {
        layer.name: layer.get_weights()[0]
        for layer in network.layers
        if type(layer).__name__ in ("Conv2D", "Dense")
    }


@pytest.fixture
def kernels_of() -> Any:
    """The function ``kernels``."""
    return SimpleNamespace(call=kernels).call


def int8_constants(data: bytes) -> list[np.ndarray]:
    """The int8 constants with two or four dimensions of a TFLite file."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(data, 0)
    return [
        np.asarray(model.buffers[t.buffer].data).view(np.int8).reshape(t.shape)
        for t in model.subgraphs[0].tensors
        if t.type == schema.TensorType.INT8 and len(t.shape) in (2, 4)
        and model.buffers[t.buffer].data is not None
    ]  # fmt: skip


@pytest.fixture
def int8_kernels() -> Any:
    """The function ``int8_constants``."""
    return SimpleNamespace(call=int8_constants).call
