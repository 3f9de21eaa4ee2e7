"""``RunClassifier``: the float network of a finished Run, asked as a Bundle is asked."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from smidgen.runtime.classifier import Classification, Prediction, Timings
from smidgen.runtime.errors import ArgumentInvalid
from smidgen.runtime.preprocessing import decode, load_pixels
from smidgen.train.backend import select_backend
from smidgen.train.run import Run
from smidgen.train.seeing.metrics import probabilities

if TYPE_CHECKING:
    from smidgen.runtime.preprocessing import ImageSource


class RunClassifier:
    """``model.keras`` of a Run on its own Keras backend; answers as ``runtime.Classifier`` does."""

    def __init__(self, run: Run) -> None:
        """Load the network.

        Raises:
            BackendError: the Run's Keras backend is not installed, or another one is in use.
            WeightsError: the network cannot be loaded.
            NotARun: a file of the Run is missing or damaged.
        """
        self.labels = run.labels
        self.preprocessing = run.preprocessing()
        normalization = run.normalization
        self._mean = np.array(normalization.mean, np.float32)
        self._std = np.array(normalization.std, np.float32)
        select_backend(run.recipe.schedule.backend)
        from smidgen.train.models.weights import load_network

        self._network = load_network(run.model_path)

    def classify(self, image: ImageSource, *, top: int = 5) -> Classification:
        """Label one picture; ``image`` and ``top`` as in ``runtime.Classifier.classify``.

        Raises:
            ImageError: the picture cannot be read.
            ArgumentInvalid: ``top`` is not a whole number of at least 1.
        """
        if type(top) is not int or top < 1:
            raise ArgumentInvalid(f"top = {top!r}: expected a whole number of at least 1")
        start = time.perf_counter_ns()
        picture = image if isinstance(image, np.ndarray) else decode(image)
        decoded = time.perf_counter_ns()
        pixels = load_pixels(picture, self.preprocessing)[np.newaxis]
        loaded = time.perf_counter_ns()
        shares = self.scores(pixels)[0]
        ended = time.perf_counter_ns()
        order = np.argsort(-shares, kind="stable")[:top]
        best = tuple(Prediction(self.labels[i], int(i), float(shares[i])) for i in order)
        timings = Timings(decoded - start, loaded - decoded, ended - loaded)
        return Classification(best[0].label, best[0].score, best, False, timings)

    def scores(self, pixels: np.ndarray) -> np.ndarray:
        """Probabilities ``(N, classes) float32`` of ``(N, S, S, 3) uint8`` RGB 0..255."""
        normalised = (pixels.astype(np.float32) - self._mean) / self._std
        logits = np.asarray(self._network.predict_on_batch(normalised))
        return probabilities(logits).astype(np.float32)
