"""What an inference engine is: two Protocols. ``engines.ENGINES`` names those that there are.

``Classifier`` takes a name of that table, or any object that satisfies ``Engine``
(``fake.FakeEngine`` is one).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from smidgen.runtime.engine_checks import ModelFormat
from smidgen.runtime.manifest import Manifest

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]
    Scores = npt.NDArray[np.float32]


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

    def open(self, data: bytes, manifest: Manifest, threads: int) -> Session:
        """Load the model file ``data``. Raises EngineMissing or EngineFailed."""
        ...
