"""Every backbone of the table learns: a few steps of the real loop's step on one small batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest

from smidgen.train.backend import select_backend
from smidgen.train.models.backbones import BACKBONES, BackboneName
from smidgen.train.models.facts import normalization_of
from smidgen.train.recipe import ModelRecipe

select_backend("tensorflow")

import keras  # noqa: E402

from smidgen.train.fitting.objective import Objective  # noqa: E402
from smidgen.train.fitting.optimizer import AdamW, unflat  # noqa: E402
from smidgen.train.fitting.stepper import stepper  # noqa: E402
from smidgen.train.fitting.steps import Batch, Learning  # noqa: E402
from smidgen.train.fitting.trainee import Trainee, training_copy  # noqa: E402
from smidgen.train.models.network import build  # noqa: E402

QUICK = ("efficientnet-lite0", "vgg16", "mobilenet-v3-small")
COMPILED = (
    *QUICK, "efficientnet-b0", "efficientnetv2-b0", "resnet50", "vgg19", "inception-v3",
    "xception", "mobilenet-v2", "mobilenet-v3-large",
)  # fmt: skip
"""One network of each kind; the larger ones differ in width and depth, and compiling them would
take longer than computing."""
LARGE = ("efficientnet-b4", "efficientnet-b5", "efficientnet-b6", "efficientnet-b7")
STEPS = {"vgg16": 24, "vgg19": 24, **dict.fromkeys(LARGE, 2)}
"""Without batch normalisation it takes longer; of the largest two steps must do."""
USUAL_STEPS = 8
IMAGES = 8


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    """Graphs of one network are gone before the next one is built."""
    import tensorflow as tf

    yield
    tf.config.run_functions_eagerly(False)
    keras.backend.clear_session()


def pictures(side: int) -> np.ndarray:
    """``(8, side, side, 3) uint8``: four with vertical and four with horizontal stripes, noisy."""
    random = np.random.default_rng(0)
    stripes = 255 * (np.arange(side) // 4 % 2)
    upright = np.broadcast_to(stripes[None, :, None], (side, side, 3))
    both = np.stack([upright] * 4 + [upright.transpose(1, 0, 2)] * 4)
    return np.clip(both + random.normal(0, 40, both.shape), 0, 255).astype(np.uint8)


class Learnt(NamedTuple):
    """The loss of each step, the variables that did not move, and logits ``(8, 2) float32``."""

    losses: list[float]
    still: list[str]
    logits: np.ndarray


def learn(name: BackboneName, rate: float) -> Learnt:
    """A network with random weights after its steps on ``pictures``, and its answers to them."""
    keras.utils.set_random_seed(0)
    model = ModelRecipe(backbone=name, weights="none", dropout=0.0)
    side = BACKBONES[name].smallest_image_size
    network = training_copy(build(model, 2, side), "float32")
    trainee = Trainee(network, normalization_of(model))
    steps = stepper(Learning(trainee, AdamW(0.0, 0.0, 1), Objective()))
    variables = trainee.trainable_variables
    before = [keras.ops.convert_to_numpy(variable) for variable in variables]
    targets = np.eye(2, dtype=np.float32)[np.arange(IMAGES) // 4]
    batch = Batch(pictures(side), targets, np.ones(IMAGES, np.float32))
    count = STEPS.get(name, USUAL_STEPS)
    losses = [float(steps.step(batch, rate, is_update=True).loss) for _ in range(count)]
    after = unflat(steps.trained(), variables)
    still = [
        variable.path
        for variable, old, new in zip(variables, before, after, strict=True)
        if np.array_equal(old, np.asarray(new))
    ]
    return Learnt(losses, still, steps.predict(batch.pixels))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in BACKBONES],
)
def test_a_backbone_learns(name: BackboneName) -> None:
    """Every variable is reached; more steps than two lower the loss of the batch by a tenth."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(name not in COMPILED)
    losses, still, logits = learn(name, rate=1e-3)
    assert still == []
    assert losses[0] == pytest.approx(np.log(2), rel=1e-5)  # logits begin as zeros
    if name not in LARGE:
        assert losses[-1] < 0.9 * losses[0], losses
    assert (logits.shape, logits.dtype) == ((IMAGES, 2), np.float32)
    assert np.isfinite(logits).all()
    assert logits.any()


def test_a_network_that_does_not_learn_would_be_seen() -> None:
    """The planted fault: steps of a learning rate of 0."""
    losses, still, logits = learn("mobilenet-v3-small", rate=0.0)
    assert len(still) > 100
    assert losses[-1] >= 0.9 * losses[0]
    assert not logits.any()
