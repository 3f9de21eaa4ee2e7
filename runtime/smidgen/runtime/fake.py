"""An engine without a library, for tests of everything around it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable, Optional

import numpy as np

from smidgen.runtime.engine_checks import ModelFormat, check_threads
from smidgen.runtime.errors import EngineFailed, EngineMissing
from smidgen.runtime.manifest import Manifest

if TYPE_CHECKING:
    from smidgen.runtime.engine import EngineOptions, Pixels, Scores, Session


def brightness_scores(pixels: Pixels, classes: int) -> Scores:
    """``(N, H, W, 3) uint8`` to ``(N, classes) float32``: all mass on one class by brightness.

    The class is ``floor(mean / 256 * classes)`` with probability 0.9, the others share 0.1.
    """
    means = pixels.reshape(len(pixels), -1).mean(axis=1)
    scores = np.full((len(pixels), classes), 0.1 / max(1, classes - 1), np.float32)
    scores[np.arange(len(pixels)), (means / 256 * classes).astype(int)] = 0.9
    return scores


@dataclass(frozen=True)
class FakeEngine:
    """Satisfies ``Engine``. ``scores`` maps pixels and the number of classes to probabilities."""

    name: str = "fake"
    model_format: ModelFormat = "onnx"
    scores: Callable[[Pixels, int], Scores] = field(default=brightness_scores)
    installed: bool = True
    import_error: Optional[str] = None
    reported_version: str = "1.2.3"

    def available(self) -> bool:
        """See Engine."""
        return self.installed

    def load(self) -> None:
        """Raises EngineMissing when ``import_error`` is set."""
        if self.import_error is not None:
            raise EngineMissing(f"{self.name} does not import ({self.import_error})")

    def version(self) -> str:
        """See Engine."""
        return self.reported_version

    def open(self, data: bytes, manifest: Manifest, options: EngineOptions) -> Session:
        """See Engine; the model's bytes are not looked at."""
        del data
        check_threads(options.threads)
        return FakeSession(self, len(manifest.labels))


class FakeSession:
    """Satisfies ``Session``."""

    def __init__(self, engine: FakeEngine, classes: int) -> None:
        self._engine = engine
        self._classes = classes
        self._open = True

    def run(self, pixels: Pixels) -> Scores:
        """See Session."""
        if not self._open:
            raise EngineFailed(f"{self._engine.name}: the session is closed")
        return self._engine.scores(pixels, self._classes)

    def close(self) -> None:
        """See Session."""
        self._open = False
