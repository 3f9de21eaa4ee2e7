"""Everything that decides how Bundles are measured: the ``[bench]`` table of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from smidgen.runtime.schema import setting

EngineChoice = Literal["auto", "litert", "tflite", "tensorflow", "onnxruntime"]


@dataclass(frozen=True)
class BenchRecipe:
    """How often and with what each Bundle is run.

    The defaults take 5 rounds of 20 timed runs, each round in a fresh process: about 10 seconds for
    four EfficientNet-Lite0 Bundles at 224 px on two cores. Intervals need at least three rounds.
    """

    rounds: int = setting(
        5, help="fresh processes per Bundle, taking turns with the other Bundles", low=1, high=1000
    )
    runs: int = setting(20, help="timed runs in each process", low=1, high=100_000)
    warmup: int = setting(5, help="runs in each process before the timed ones", low=0, high=10_000)
    threads: int = setting(1, help="threads that the engine may use", low=1, high=256)
    engine: EngineChoice = setting(  # noqa: RUF009 (an alias hides that it is a Literal)
        "auto", help="engine that runs the Bundles; auto: the first fit"
    )
    order_seed: int = setting(0, help="seed of the order within the rounds", low=0)
