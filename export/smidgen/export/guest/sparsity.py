"""Magnitude pruning by tfmot: the smallest weights become zero while the network is tuned.

Zhu and Gupta 2017, "To prune, or not to prune": the share of zeros grows by a cubic law over two
thirds of the steps, then the network recovers. tfmot's own default updates its masks every 100
steps, which leaves a short tuning without a single zero; here the interval follows from the steps.

Patterns: single weights anywhere; 2 of each 4 consecutive input channels of an output channel, as
sparse matrix units take them (Mishra et al. 2021); blocks of 16 output channels of one
input channel at one position. tfmot takes blocks of matrices only, so a convolution's kernel is
trained as a matrix ``(height * width * in, out)``. Depthwise kernels stay dense, and so do kernels
that hold less than a thousandth of all weights: nothing is gained there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.errors import StructureError
from smidgen.export.guest.adapter import GuestNetwork, plan, tune
from smidgen.export.guest.copier import copy_to_guest
from smidgen.export.guest.layers import OWN_FUNCTIONS
from smidgen.export.guest.room import tf_keras, tfmot
from smidgen.export.guest.selection import large_kernels
from smidgen.export.recipe import SparsityRecipe
from smidgen.export.tensorflow_backend import captured_output, tf
from smidgen.export.workshop import PassResult, TuningWish, Workshop

BLOCK = 16
_MASK_UPDATES = 20
_GROWING = 2 / 3
"""Share of the steps in which zeros are added."""


@dataclass(frozen=True)
class _Schedule:
    """When masks are made anew, in steps counted from 1."""

    interval: int
    last: int

    @classmethod
    def of(cls, steps: int) -> _Schedule:
        growing = max(1, round(_GROWING * steps))
        interval = max(1, growing // _MASK_UPDATES)
        return cls(interval, 1 + interval * max(1, (growing - 1) // interval))


def sparsify(network: Any, settings: SparsityRecipe, workshop: Workshop) -> PassResult:
    """``network`` with zeros in its kernels, tuned meanwhile.

    Args:
        network: functional Keras 3: normalised ``(N, H, W, 3) float32`` to logits.
        settings: the share of zeros, their pattern (``2:4`` is always a half) and the tuning.
        workshop: its tuner trains; its source is the teacher.

    Returns:
        A Keras 3 network of the same layers, and the shares of zeros.

    Raises:
        CopyError: a layer cannot be copied to tf_keras.
        StructureError: the zeros are not there.
        SourceError: there are no training images, or they changed.
    """
    copy = copy_to_guest(network)
    chosen = {name for name, kernel in large_kernels(copy.model) if _takes(kernel, settings)}
    if not chosen:
        raise StructureError(
            f"no kernel of this network can have the pattern {settings.pattern}: expected a layer "
            'of more than 16 channels; choose sparsity.pattern = "single"'
        )
    _train(copy.model, chosen, settings, workshop)
    shares = [
        _check(name, copy.model.get_layer(name).get_weights()[0], settings)
        for name in sorted(chosen)
    ]
    sparse = copy.give_back(copy.model, network)
    facts = {
        "pattern": settings.pattern,
        "zeros": f"{100 * float(np.mean(shares)):.1f} % of {len(shares)} kernels",
        "validation top-1": f"{100 * workshop.tuner.validation_top1(sparse):.2f} %",
    }
    return PassResult(sparse, facts)


def _train(model: Any, chosen: set[str], settings: SparsityRecipe, workshop: Workshop) -> None:
    """Give the tf_keras network ``model`` its zeros, in place."""
    schedule = _Schedule.of(workshop.tuner.steps_of(settings.epochs))
    with captured_output():
        guest = _wrapped(model, chosen, settings, schedule)
    wrappers = [x for x in guest.layers if hasattr(x, "pruning_step")]

    def before_step(step: int) -> None:
        for wrapper in wrappers:
            wrapper.pruning_step.assign(step)  # tfmot adds one before it looks

    wish = TuningWish("sparsity", plan(settings.epochs, settings.learning_rate, "last"))
    tune(GuestNetwork(guest), wish, workshop, before_step)
    for wrapper in wrappers:
        _finish(wrapper, 1 if settings.pattern == "2:4" else schedule.last)
    for layer in guest.layers:
        inner = getattr(layer, "layer", layer)
        twin = model.get_layer(inner.name)
        pairs = zip(inner.get_weights(), twin.get_weights(), strict=True)
        twin.set_weights([mine.reshape(other.shape) for mine, other in pairs])


def zero_blocks(kernel: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Blocks of 16 output channels that are all zero, ``(height * width * in, ceil(out / 16))``."""
    matrix = kernel.reshape(-1, kernel.shape[-1])
    padded = np.pad(matrix, ((0, 0), (0, -matrix.shape[1] % BLOCK)))
    blocks: NDArray[np.bool_] = (padded.reshape(len(matrix), -1, BLOCK) == 0).all(axis=-1)
    return blocks


def most_of_four(kernel: NDArray[np.float32]) -> int:
    """The most non-zero weights in four consecutive input channels of one output channel."""
    rows = np.moveaxis(kernel, -1, 0).reshape(-1, kernel.shape[-2])
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    return int(np.count_nonzero(padded.reshape(len(rows), -1, 4), axis=-1).max())


def _takes(kernel: NDArray[np.float32], settings: SparsityRecipe) -> bool:
    """tfmot fails at a matrix that is one block wide, or one row."""
    if settings.pattern != "block-1x16":
        return True
    return bool(kernel.shape[-1] > BLOCK and np.prod(kernel.shape[:-1]) > 1)


def _wrapped(model: Any, chosen: set[str], settings: SparsityRecipe, schedule: _Schedule) -> Any:
    kind = tfmot.sparsity.keras
    is_block = settings.pattern == "block-1x16"
    how: dict[str, Any] = {
        "pruning_schedule": kind.PolynomialDecay(
            0.0, settings.share, 1, schedule.last, power=3, frequency=schedule.interval
        )
    }
    if settings.pattern == "2:4":
        how["sparsity_m_by_n"] = (2, 4)
    if is_block:
        how["block_size"] = (1, BLOCK)

    def twin(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name not in chosen:
            return type(layer).from_config(config)
        matrix = is_block and isinstance(layer, tf_keras.layers.Conv2D)
        new = (_MatrixConv2D if matrix else type(layer)).from_config(config)
        return kind.prune_low_magnitude(new, **how)

    with tf_keras.utils.custom_object_scope(OWN_FUNCTIONS):
        guest = tf_keras.models.clone_model(model, clone_function=twin)
    for layer in guest.layers:
        inner = getattr(layer, "layer", layer)
        pairs = zip(model.get_layer(inner.name).get_weights(), inner.get_weights(), strict=True)
        inner.set_weights([mine.reshape(other.shape) for mine, other in pairs])
    return guest


class _MatrixConv2D(tf_keras.layers.Conv2D):  # type: ignore[misc]
    """A convolution whose kernel is a matrix ``(height * width * in, out)``."""

    def build(self, input_shape: Any) -> None:
        """Make the matrix and the bias."""
        self._kernel_shape = (*self.kernel_size, int(input_shape[-1]), self.filters)
        rows = int(np.prod(self._kernel_shape[:-1]))
        self.matrix = self.add_weight("kernel", (rows, self.filters))
        if self.use_bias:
            self.bias = self.add_weight("bias", (self.filters,))
        self.built = True

    def call(self, inputs: Any) -> Any:
        """The convolution of ``(N, H, W, in)``."""
        output = tf.nn.conv2d(
            inputs, tf.reshape(self.matrix, self._kernel_shape), self.strides,
            self.padding.upper(), dilations=self.dilation_rate,
        )  # fmt: skip
        return tf.nn.bias_add(output, self.bias) if self.use_bias else output

    def get_prunable_weights(self) -> list[Any]:
        """What tfmot asks for."""
        return [self.matrix]


def _finish(wrapper: Any, step: int) -> None:
    """Zeros where the mask has them, also after the last step's update of the weights.

    The mask is made once more as at ``step``: the same one, as what it hid is zero now; a tuning
    that was too short to get there gets it here.
    """
    pruning = wrapper.pruning_obj
    pruning.weight_mask_op()
    wrapper.pruning_step.assign(step)
    pruning.conditional_mask_update()
    pruning.weight_mask_op()


def _check(name: str, kernel: NDArray[np.float32], settings: SparsityRecipe) -> float:
    """The share of zeros. Raises StructureError where the pattern is not what was asked for."""
    share = float((kernel == 0).mean())
    if settings.pattern == "2:4":
        most = most_of_four(kernel)
        if most > 2:
            raise _missing(name, f"{most} of 4 weights are not zero", "2")
        return share
    units = zero_blocks(kernel) if settings.pattern == "block-1x16" else kernel == 0
    if units.mean() < settings.share - 1.5 / units.size:
        what = "blocks" if settings.pattern == "block-1x16" else "weights"
        raise _missing(name, f"{units.mean():.4f} of its {what} are zero", f"{settings.share}")
    return share


def _missing(name: str, got: str, expected: str) -> StructureError:
    return StructureError(
        f"sparsity of layer {name}: {got}, expected {expected}: the tuning undid the pruning; "
        "report this with the recipe"
    )
