"""Judging a packed Bundle: answers in its own runtime, the gate's verdict, a golden sample."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smidgen.export.errors import GateError
from smidgen.export.gate.judge import Judge, keep_scores, kept_scores, reference_scores
from smidgen.export.gate.metrics import calibration_error
from smidgen.export.gate.paired import Pairs
from smidgen.export.gate.verdicts import FLOAT_PARITY, JudgedImages, Limits, judge_scores
from smidgen.export.pictures import Picture
from smidgen.export.progress import Progress, stage
from smidgen.export.recipe import ExportRecipe
from smidgen.export.source import FloatModel
from smidgen.runtime.decisions import shown_scores
from smidgen.runtime.manifest import GoldenSample, Manifest, Scheme, Verdict
from smidgen.runtime.schema import as_mapping
from smidgen.runtime.selftest import make_golden

GOLDEN_TOLERANCES: dict[Scheme, float] = {
    "float32": 1e-3,
    "float16": 1e-3,
    "weights-int8": 1e-3,
    "dynamic": 0.05,
    "int8": 0.02,
    "int16x8": 0.02,
}
"""Allowed difference of a probability on another machine. Float kernels sum in another order: 1e-3
is 100 times what was seen. Integer kernels agree but for the rounding of requantization, one or two
steps of 1/256 in the softmax's input or output: 0.02 is five steps. Dynamic ranges are rounded anew
in each layer, by engines in ways of their own."""

_GOLDEN_TRIES = 10
REFERENCE_FILE = "reference.npz"


@dataclass(frozen=True)
class Findings:
    """What judging a Bundle found; ``facts`` of its temperature and threshold, in words."""

    verdict: Verdict
    pairs: Pairs
    golden: GoldenSample | None
    facts: dict[str, str] = field(default_factory=dict)


@dataclass
class Verifier:
    """Judges the Bundles of ``source`` on ``pictures`` against its float model.

    ``load`` gives the Keras model, and is called only where its answers are not kept in ``folder``
    from an earlier, interrupted export. ``changed`` gives the network after the passes that changed
    it, None where there were none: a float32 file must be that network, to float rounding, while
    every file is judged against the float model as it came.
    """

    source: FloatModel
    recipe: ExportRecipe
    pictures: Sequence[Picture]
    folder: Path
    load: Callable[[], Any]
    progress: Progress
    seconds: dict[str, float]
    judge: Judge = field(default_factory=Judge)
    changed: Callable[[], Any] | None = None

    @cached_property
    def reference(self) -> NDArray[np.float32]:
        """The float model's probabilities, ``(N, classes) float32``."""
        if not self.pictures:
            raise GateError(
                "no held-out images, so no file can be verified: add images to the test split"
            )
        path, key = self.folder / REFERENCE_FILE, self._reference_key()
        scores = kept_scores(path, key)
        if scores is None:
            model = self.load()
            with stage(self.progress, "ask the float model", self.seconds, len(self.pictures)):
                scores = reference_scores(
                    model,
                    self.source.normalization,
                    self.source.preprocessing,
                    self.pictures,
                    self.progress.advance,
                )
            keep_scores(path, key, scores)
        return scores

    @cached_property
    def truth(self) -> NDArray[np.int64] | None:
        """The pictures' labels, ``(N,) int64``; None where any is unknown."""
        labels = [picture.label for picture in self.pictures]
        known = [label for label in labels if label is not None]
        return np.asarray(known, np.int64) if len(known) == len(labels) else None

    def verify(self, bundle: Path, manifest: Manifest) -> Findings:
        """Run the Bundle and compare; ``manifest`` may be newer than the one in the file.

        Raises:
            CandidateFailed: its process crashed, stalled or refused.
            GateError: the answers cannot be compared.
        """
        reference = self.reference
        name = f"judge {manifest.scheme} .{manifest.model_format}"
        with stage(self.progress, name, self.seconds, len(self.pictures)):
            answers = self.judge.answer_pictures(bundle, self.pictures, self.progress.advance)
        is_float = manifest.scheme == "float32"
        if is_float and self.changed is not None:
            self._check_same(answers.scores)
        is_same = is_float and self.changed is None
        sure = shown_scores(answers.scores, manifest).max(axis=1)
        verdict, pairs = judge_scores(
            reference,
            answers.scores,
            images=JudgedImages(
                self.truth,
                manifest.labels,
                [picture.sha256 for picture in self.pictures],
                (reference.max(axis=1), sure),
            ),
            limits=Limits(self.recipe.max_drop, FLOAT_PARITY if is_same else None),
            engine=answers.engine,
        )
        golden = self._golden(bundle, manifest, answers.scores)
        return Findings(verdict, pairs, golden, self._facts(manifest, answers.scores, sure))

    def _facts(
        self, manifest: Manifest, scores: NDArray[np.float32], sure: NDArray[np.float32]
    ) -> dict[str, str]:
        """What temperature and threshold do on the held-out images, whose labels are known."""
        facts: dict[str, str] = {}
        if self.truth is None:
            return facts
        right = scores.argmax(axis=1) == self.truth
        if manifest.temperature != 1.0:
            errors = [100 * calibration_error(each, right) for each in (scores.max(axis=1), sure)]
            facts["calibration error"] = (
                f"{errors[0]:.2f} % without temperature, {errors[1]:.2f} % with it"
            )
        if manifest.abstain_below > 0:
            given = sure >= manifest.abstain_below
            share = f"{right[given].mean():.1%} of them right" if given.any() else "none right"
            facts["answered"] = f"{given.mean():.1%} of {len(given)} held-out images, {share}"
        return facts

    @cached_property
    def _changed_scores(self) -> NDArray[np.float32]:
        """The changed network's probabilities, ``(N, classes) float32``."""
        assert self.changed is not None
        network, source = self.changed(), self.source
        with stage(self.progress, "ask the changed network", self.seconds, len(self.pictures)):
            return reference_scores(
                network,
                source.normalization,
                source.preprocessing,
                self.pictures,
                self.progress.advance,
            )

    def _check_same(self, scores: NDArray[np.float32]) -> None:
        """Raise GateError where a float32 file is not the changed network it was made of."""
        worst = float(np.abs(self._changed_scores.astype(np.float64) - scores).max())
        if not worst <= FLOAT_PARITY:
            raise GateError(
                f"a probability of the float32 file differs by {worst:.2g} from the network it was "
                f"made of (allowed {FLOAT_PARITY:g}): the conversion changed it, report this"
            )

    def _golden(
        self, bundle: Path, manifest: Manifest, scores: NDArray[np.float32]
    ) -> GoldenSample | None:
        """A sample on which both models are right and sure, as the Bundle itself answers it.

        The picture inside is reduced, so what it shows may get lost: the next one is tried then.
        None where ten do not do; such a file has failed its gate anyway, or its model knows little.
        """
        right = self.reference.argmax(axis=1) if self.truth is None else self.truth
        agree = (self.reference.argmax(axis=1) == right) & (scores.argmax(axis=1) == right)
        sureness = np.where(agree, np.minimum(self.reference.max(axis=1), scores.max(axis=1)), -1)
        for index in np.argsort(-sureness, kind="stable")[:_GOLDEN_TRIES]:
            if not agree[index]:
                break
            golden = make_golden(
                self.pictures[index].read(),
                manifest.preprocessing,
                lambda pixels: self.judge.answer_pixels(bundle, pixels).scores,
                manifest.labels,
                GOLDEN_TOLERANCES[manifest.scheme],
            )
            if golden.label == manifest.labels[right[index]]:
                return golden
        return None

    def _reference_key(self) -> str:
        content = [
            self.source.weights_sha256,
            as_mapping(self.source.preprocessing),
            as_mapping(self.source.normalization),
            [[picture.sha256, picture.turn] for picture in self.pictures],
        ]
        return hashlib.sha256(json.dumps(content).encode("utf-8")).hexdigest()
