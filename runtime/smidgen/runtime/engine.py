"""What an inference engine is: two Protocols. ``engines.ENGINES`` names those that there are.

``Classifier`` takes a name of that table, or any object that satisfies ``Engine``
(``fake.FakeEngine`` is one).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from smidgen.runtime.engine_checks import ModelFormat
from smidgen.runtime.manifest import Manifest

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]
    Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class EngineOptions:
    """How an engine shall run a Bundle. What an engine does not have, it refuses.

    ``threads``: CPU threads of one inference, 1 to 256. ``delegates`` (TFLite engines):
    ``"xnnpack"``, ``"no-xnnpack"``, names of ``delegates.LIBRARIES``, or paths of libraries.
    ``providers`` (ONNX Runtime): execution providers, the preferred one first; none is the CPU.
    """

    threads: int = 1
    delegates: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()


class Session(Protocol):
    """A model loaded into an engine. For one thread at a time."""

    def run(self, pixels: Pixels) -> Scores:
        """``(N, H, W, 3) uint8, RGB, 0..255`` to ``(N, classes) float32`` probabilities.

        Raises EngineFailed.
        """
        ...

    def close(self) -> None:
        """Give the memory back. Closing twice is fine."""
        ...


class Engine(Protocol):
    """A library that runs models of one format."""

    @property
    def name(self) -> str:
        """The name in ``ENGINES`` and on the command line."""
        ...

    @property
    def model_format(self) -> ModelFormat:
        """The Bundles that it runs."""
        ...

    def available(self) -> bool:
        """Whether the library is installed; it is not imported for that."""
        ...

    def load(self) -> None:
        """Import the library. Raises EngineMissing when that fails."""
        ...

    def version(self) -> str:
        """The installed version, ``"unknown"`` where the library does not tell."""
        ...

    def open(self, data: bytes, manifest: Manifest, options: EngineOptions) -> Session:
        """Load the model file ``data``. Raises EngineMissing or EngineFailed."""
        ...
