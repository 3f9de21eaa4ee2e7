"""What a contender trains. Imports the standard library only: every environment reads it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Literal

Stage = Literal["full", "head", "features", "features-pass"]
Source = Literal["batch", "files"]

LEARNING_RATE = 1e-4
WEIGHT_DECAY = 1e-4
LABEL_SMOOTHING = 0.1
BATCH_CLASSES = 10
"""Classes where one batch of random pixels is trained on again and again."""


@dataclass(frozen=True)
class Setting:
    """One training of EfficientNet-Lite0 from its ImageNet weights.

    ``stage``: all layers learn; or the last one alone, behind a frozen network that is computed in
    every step; or the last one on features that were kept; or the pass that computes those.
    ``source``: one batch again and again, or the images of ``folder`` (a folder per class) with
    augmentation, as the contender's users read them. ``compiled``: where there is a choice, whether
    the contender's compiler makes one program of a step.
    """

    folder: str
    image_size: int
    batch_size: int
    stage: Stage
    source: Source
    precision: Literal["float32", "bfloat16"]
    backend: Literal["tensorflow", "jax"]
    threads: int
    compiled: bool = False

    def to_json(self) -> str:
        """One line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Setting:
        """The inverse of ``to_json``."""
        return cls(**json.loads(text))
