"""Finished Runs that a new one learns from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from smidgen.train.data import Dataset
from smidgen.train.errors import RunMismatch
from smidgen.train.fitting.objective import Answers
from smidgen.train.fitting.trainee import Outputs, Trainee
from smidgen.train.recipe import DistillationRecipe
from smidgen.train.run import Run


class Teachers:
    """Networks of finished Runs; they see the pixels of the trainee, each at its own input size."""

    def __init__(
        self,
        networks: Sequence[tuple[Any, Any]],
        temperature: float,
        hints: Sequence[str] = (),
    ) -> None:
        """``networks``: pairs of a network and its ``Normalization``.

        ``hints``: names of layers whose outputs are taught too; the first network's.
        """
        self._members = [
            Trainee(network, facts, hints=() if number else hints)
            for number, (network, facts) in enumerate(networks)
        ]
        for member in self._members:
            member.trainable = False
        self._temperature = temperature

    def __call__(self, pixels: Any) -> Answers:
        """``Answers`` to pixels ``(N, H, W, 3)``: the mean probabilities at the temperature."""
        return self._answers([member((p, p)) for member, p in self._sized(pixels)])

    def values(self) -> list[list[Any]]:
        """The variables' values, a list for each member: what ``stateless`` needs."""
        return [[variable.value for variable in member.variables] for member in self._members]

    def stateless(self, values: list[list[Any]], pixels: Any) -> Answers:
        """As a call, with the values handed in: for functions that are compiled."""
        answers = []
        for (member, sized), own in zip(self._sized(pixels), values, strict=True):
            outputs, _ = member.stateless_call([], own, (sized, sized), training=False)
            answers.append(outputs)
        return self._answers(answers)

    def _sized(self, pixels: Any) -> list[tuple[Trainee, Any]]:
        pairs = []
        for member in self._members:
            size = tuple(member.network.input_shape[1:3])
            sized = pixels
            if tuple(pixels.shape[1:3]) != size:
                sized = keras.ops.image.resize(pixels, size, "bilinear", antialias=True)
            pairs.append((member, sized))
        return pairs

    def _answers(self, outputs: Sequence[Outputs]) -> Answers:
        parts = [keras.ops.softmax(output.logits / self._temperature) for output in outputs]
        return Answers(sum(parts[1:], parts[0]) / len(parts), outputs[0].hints)


def teachers_of(recipe: DistillationRecipe, dataset: Dataset) -> Teachers | None:
    """The teachers that ``recipe`` names, loaded; None where it names none.

    Raises:
        NotARun: one is no finished Run.
        RunMismatch: one has other labels, or was trained on images that are held out here.
    """
    if not recipe.teachers:
        return None
    from smidgen.train.models.weights import load_network

    networks = []
    for folder in recipe.teachers:
        run = Run.open(folder)
        check_teacher(run, dataset)
        networks.append((load_network(run.model_path), run.normalization))
    return Teachers(networks, recipe.temperature)


def check_teacher(run: Run, dataset: Dataset) -> None:
    """Raise RunMismatch unless ``run`` may teach on ``dataset``."""
    if run.labels != dataset.labels:
        raise RunMismatch(
            f"the teacher {run.folder} knows the labels {', '.join(run.labels[:5])}, the images "
            f"have {', '.join(dataset.labels[:5])}: choose a Run of the same labels"
        )
    held_out = {example.sha256 for example in (*dataset.validation, *dataset.test)}
    seen = sum(example.sha256 in held_out for example in run.dataset().train)
    if seen:
        raise RunMismatch(
            f"the teacher {run.folder} was trained on {seen} images that are held out here: "
            "train it with the same data settings (split, seed), so that no answer leaks"
        )
