"""Asking one packed Bundle for its answers on validation images, and fitting what it says of them.

Every file is asked by itself, in its own runtime: rounding changes how sure a network is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smidgen.export.calibration import refuse_held_out
from smidgen.export.decisions import (
    FEWEST_IMAGES,
    best_bound,
    choose_threshold,
    faultless_answers,
    fit_temperature,
)
from smidgen.export.errors import DecisionError
from smidgen.export.gate.judge import Judge
from smidgen.export.progress import Progress, stage
from smidgen.export.recipe import DecisionsRecipe
from smidgen.export.source import FloatModel
from smidgen.runtime.decisions import calibrated, score_floor
from smidgen.runtime.manifest import Manifest


@dataclass(frozen=True)
class Decided:
    """What goes into the manifest, and how it was found, in words."""

    temperature: float = 1.0
    abstain_below: float = 0.0
    facts: dict[str, str] = field(default_factory=dict)


@dataclass
class Decider:
    """Fits the temperature and threshold of the Bundles of ``source`` on its validation images."""

    source: FloatModel
    recipe: DecisionsRecipe
    progress: Progress
    seconds: dict[str, float]
    judge: Judge = field(default_factory=Judge)

    @property
    def wanted(self) -> float:
        """The share of answers given that must be right, 0..1; 0: every answer is given."""
        return self.recipe.answered_accuracy / 100

    @cached_property
    def truth(self) -> NDArray[np.int64] | None:
        """The labels of the validation images, ``(N,) int64``; None: there are none to fit on."""
        labels = [picture.label for picture in self.source.validation]
        known = [label for label in labels if label is not None]
        return np.asarray(known, np.int64) if known and len(known) == len(labels) else None

    @cached_property
    def images(self) -> int:
        """How many different validation images there are."""
        return len({picture.sha256 for picture in self.source.validation})

    def check(self) -> None:
        """Before any work: whether what is asked for can be had.

        Raises:
            CalibrationError: a validation image is held out for the gate.
            DecisionError: an accuracy that these images cannot prove, however good the files are.
        """
        refuse_held_out(self.source.validation, self.source.held_out)
        if self.recipe.temperature_scaling and self._too_few():
            self.progress.note(f"no temperature is fitted: {self._too_few()}")
        if not self.wanted:
            return
        asked, needed = f"{self.recipe.answered_accuracy:g} %", faultless_answers(self.wanted)
        if self.truth is None:
            raise DecisionError(
                f"nothing can prove that {asked} of the answers are right without labelled "
                "validation images: export a Run, or --model with ready train/ validation/ test/, "
                "or leave --answered-accuracy out"
            )
        if self.images < needed:
            most = 100 * 0.05 ** (1 / self.images)
            raise DecisionError(
                f"{self.images} validation images cannot prove that {asked} of the answers are "
                f"right (that takes {needed}, without a fault): add some, or ask for at most "
                f"--answered-accuracy {_floor(most)}"
            )

    def decide(self, bundle: Path, manifest: Manifest) -> Decided:
        """The Bundle's temperature and threshold; 1 and 0 where there is nothing to fit on.

        Raises:
            CandidateFailed: its process crashed, stalled or refused.
            DecisionError: no threshold keeps the accuracy that was asked for.
        """
        pictures, truth = self.source.validation, self.truth
        fits = self.recipe.temperature_scaling
        why = self._too_few()
        if truth is None or not (self.wanted or (fits and not why)):
            return Decided(facts={"temperature": f"1: {why}"} if fits else {})
        with stage(self.progress, f"fit {manifest.scheme} .{manifest.model_format}", self.seconds):
            scores = self.judge.answer_pictures(bundle, pictures, lambda _: None).scores
            floor = score_floor(manifest)
            temperature = fit_temperature(scores, truth, floor) if fits and not why else 1.0
        facts = {}
        if fits:
            by = f"{temperature:g}, fitted on {self.images} validation images"
            facts["temperature"] = f"1: {why}" if why else by
        shown = calibrated(scores, temperature, floor)
        right = scores.argmax(axis=1) == truth
        below = self._threshold(bundle, shown.max(axis=1), right, facts) if self.wanted else 0.0
        return Decided(temperature, below, facts)

    def _too_few(self) -> str:
        """Why no temperature is fitted; empty where one is."""
        if self.truth is None:
            return "no labelled validation images to fit it on"
        if self.images < FEWEST_IMAGES:
            return f"{self.images} validation images are too few, {FEWEST_IMAGES} are needed"
        return ""

    def _threshold(
        self,
        bundle: Path,
        confidence: NDArray[np.float32],
        right: NDArray[np.bool_],
        facts: dict[str, str],
    ) -> float:
        contents = [picture.sha256 for picture in self.source.validation]
        found = choose_threshold(confidence, right, contents, self.wanted)
        if found is None:
            most = 100 * best_bound(confidence, right, contents)
            raise DecisionError(
                f"{bundle.name}: no threshold proves on {self.images} validation images that "
                f"{self.recipe.answered_accuracy:g} % of the answers are right; ask for at most "
                f"--answered-accuracy {_floor(most)}, or add validation images"
            )
        facts["abstains"] = (
            f"below {found.abstain_below:.4g}; on the validation images {found.coverage:.1%} are "
            f"answered, {found.accuracy:.1%} of them right (at least {found.bound:.1%} with 95 % "
            "confidence)"
        )
        return found.abstain_below


def _floor(percent: float) -> str:
    """Rounded down to a tenth, so that it can be asked for."""
    return f"{int(percent * 10) / 10:g}"
