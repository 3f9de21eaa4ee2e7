"""Quantization-aware training: the network learns with int8's rounding, then becomes an int8 file.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-
Only Inference", with batch norms folded before. The post-training int8 file comes first: its
activation codes are what the training computes with, and what the last file has. So the training
starts from the float model's ranges, and what it learnt is what runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.errors import PairingError, QatError
from smidgen.export.formats import tflite_file, to_tflite
from smidgen.export.graphs.deploy_graph import pixel_code
from smidgen.export.graphs.fold import fold_batch_norms
from smidgen.export.guest.adapter import GuestNetwork, plan, tune
from smidgen.export.guest.clustering import clusterable
from smidgen.export.guest.copier import GuestCopy, copy_to_guest
from smidgen.export.guest.fake_quantization import fake_quantized, trained_weights
from smidgen.export.guest.room import tf_keras
from smidgen.export.guest.spreading import spread
from smidgen.export.guest.structure import structure_of
from smidgen.export.quantization.activations import Probe
from smidgen.export.quantization.numbers import (
    Code,
    code_of,
    rounded_kernel,
    set_bias,
    set_code,
    set_kernel,
)
from smidgen.export.quantization.observation import observe
from smidgen.export.quantization.pairing import PairedGraph, is_constant, pair_up
from smidgen.export.quantization.quantizer import decoded, set_activation_codes
from smidgen.export.quantization.twins import float_twin, integer_draft
from smidgen.export.recipe import QatRecipe, QuantizationRecipe
from smidgen.export.workshop import TuningWish, Workshop

LEAST_AGREEMENT = 0.95
"""Share of answers that rounding must leave before any training; below, ranges are wrong."""

_SAME_VALUES = 1e-3
"""Of a tensor's largest value: the same layer's output, computed by two libraries."""

_INT8 = 9


@dataclass(frozen=True)
class QatResult:
    """An int8 TFLite file with ``uint8`` ends (see ``formats.to_tflite``), and facts of it."""

    tflite: bytes
    facts: dict[str, str]


def quantization_aware(
    network: Any,
    settings: QatRecipe,
    workshop: Workshop,
    numbers: QuantizationRecipe,
) -> QatResult:
    """Train ``network`` with int8's rounding and make the int8 file of it.

    Zeros and clusters that the kernels of ``network`` have stay.

    Args:
        network: functional Keras 3: normalised ``(N, H, W, 3) float32`` to logits.
        settings: the training.
        workshop: its tuner trains, its calibration images set the activation codes.
        numbers: how activation codes are chosen before.

    Raises:
        CopyError: a layer cannot be copied to tf_keras.
        QatError: the int8 graph does not correspond to the network, or rounding alone changes more
            than 5 % of the answers.
        ConversionError: the converter failed.
        SourceError: there are no training images, or they changed.
    """
    folded = fold_batch_norms(network).model
    structure = structure_of(folded)
    names = frozenset(clusterable(folded)) if structure.is_clustered else frozenset()
    wide = spread(folded, names) if names else folded
    try:
        graph = _post_training(folded, workshop, numbers)
    except PairingError as error:
        raise QatError(
            f"this network cannot be trained with int8's rounding ({error}): set qat.epochs = 0 "
            "and use post-training quantization"
        ) from error
    copy = copy_to_guest(wide)
    codes = _codes_of_layers(graph, copy.model, workshop)
    guest = fake_quantized(copy.model, codes, names, is_sparse=structure.is_sparse)
    agreement = _agreement(folded, guest, np.concatenate(list(_normalised(workshop))))
    _refuse_far(agreement)
    wish = TuningWish("qat", plan(settings.epochs, settings.learning_rate, "best"))
    top1 = tune(GuestNetwork(guest, "frozen"), wish, workshop)
    tuned = _given_back(copy, guest, wide)
    data = _with_codes(graph, fold_batch_norms(tuned).model if names else tuned, workshop)
    facts = {
        "activations": f"{len(codes)} of {len(graph.activations)} rounded in training",
        "agreement before training": f"{100 * agreement:.1f} %",
        "validation top-1": f"{100 * top1:.2f} %",
    }
    return QatResult(data, facts)


def _refuse_far(agreement: float) -> None:
    """Raises QatError where rounding alone leaves too few of the float network's answers."""
    if agreement < LEAST_AGREEMENT:
        raise QatError(
            f"rounding to int8 alone changes {100 * (1 - agreement):.1f} % of the answers (allowed "
            f"{100 * (1 - LEAST_AGREEMENT):.0f} %), which training does not mend: set qat.epochs = "
            "0 and use post-training quantization, with its worst layers left in float"
        )


def _post_training(folded: Any, workshop: Workshop, numbers: QuantizationRecipe) -> PairedGraph:
    """The float and the integer graph, with the activation codes that post-training chooses.

    Nothing is equalized: the float tensors must have the values of the network's layers.
    """
    code = pixel_code(workshop.source.normalization)
    graph = _paired(folded, workshop)
    images = decoded(workshop.calibration, code)
    seen = observe(graph, images, workshop.progress.advance, with_moments=False)
    set_activation_codes(graph, seen.histograms, numbers)
    return graph


def _paired(folded: Any, workshop: Workshop) -> PairedGraph:
    normalization = workshop.source.normalization
    real = float_twin(folded, normalization)
    draft = integer_draft(folded, normalization, workshop.calibration)
    return pair_up(tflite_file.read_model(real), tflite_file.read_model(draft))


def _normalised(workshop: Workshop) -> Iterator[NDArray[np.float32]]:
    """The calibration images as the network takes them, ``(1, H, W, 3) float32`` each."""
    how = workshop.source.normalization
    mean, std = np.asarray(how.mean, np.float32), np.asarray(how.std, np.float32)
    for pixels in workshop.calibration.pixels():
        yield (pixels.astype(np.float32) - mean) / std


def _codes_of_layers(graph: PairedGraph, model: Any, workshop: Workshop) -> dict[str, Code]:
    """The code of each layer's output, by the layer's name.

    A layer and a tensor belong together where one image gives them the same values: names do not
    tell, as the converter fuses layers. What has no layer (half of a swish) is not rounded.
    """
    code = pixel_code(workshop.source.normalization)
    image = next(decoded(workshop.calibration, code))
    values = Probe(graph.float_model, graph.activations)(image)
    layers = [x for x in model.layers if not isinstance(x, tf_keras.layers.InputLayer)]
    outputs = tf_keras.Model(model.inputs, [layer.output for layer in layers])(
        next(_normalised(workshop)), training=False
    )
    found: dict[str, Code] = {}
    for pair in graph.pairs:
        value = values[int(pair.float_operator.outputs[0])].ravel()
        index = int(pair.integer_operator.outputs[0])
        if graph.integer_tensor(index).type != _INT8:
            continue
        for layer, output in zip(layers, outputs, strict=True):
            got = np.asarray(output).ravel()
            near = _SAME_VALUES * max(float(np.abs(value).max()), 1e-6)
            if got.size == value.size and float(np.abs(got - value).max()) <= near:
                if "OpLambda" not in type(layer).__name__:
                    found.setdefault(layer.name, code_of(graph, index))
                break
    return found


def _agreement(network: Any, guest: Any, images: NDArray[np.float32]) -> float:
    """Share of ``images`` that both answer alike."""
    batches = [images[start : start + 16] for start in range(0, len(images), 16)]
    expected, got = (
        np.concatenate([np.asarray(x(batch, training=False)).argmax(axis=1) for batch in batches])
        for x in (network, guest)
    )
    return float(np.mean(expected == got))


def _given_back(copy: GuestCopy, guest: Any, wide: Any) -> Any:
    """A Keras 3 network with the trained weights."""
    for layer in guest.layers:
        inner = getattr(layer, "layer", layer)
        if inner.weights:
            copy.model.get_layer(inner.name).set_weights(trained_weights(layer))
    return copy.give_back(copy.model, wide)


def _with_codes(graph: PairedGraph, tuned: Any, workshop: Workshop) -> bytes:
    """The int8 file of ``tuned`` with the activation codes of ``graph``."""
    new = _paired(tuned, workshop)
    for before, after in zip(graph.pairs, new.pairs, strict=True):
        ours, theirs = before.integer_operator, after.integer_operator
        ends = zip([*ours.inputs, *ours.outputs], [*theirs.inputs, *theirs.outputs], strict=True)
        for old, index in ends:
            if old >= 0 and _is_activation(graph, int(old)):
                set_code(new, int(index), code_of(graph, int(old)))
    for pair in new.pairs:
        if pair.is_weighted:
            kernel = rounded_kernel(new.kernel(pair), pair.kernel_axis, per_channel=True)
            set_kernel(new, pair, kernel)
            bias = new.bias(pair)
            zeros = np.zeros(new.kernel(pair).shape[pair.kernel_axis], np.float32)
            set_bias(new, pair, kernel, zeros if bias is None else bias)
    to_tflite.check_int8(new.integer_model, pixel_code(workshop.source.normalization))
    return tflite_file.write_model(new.integer_model)


def _is_activation(graph: PairedGraph, index: int) -> bool:
    is_int8 = graph.integer_tensor(index).type == _INT8
    return is_int8 and not is_constant(graph.integer_model, index)
