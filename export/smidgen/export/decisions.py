"""How sure is sure: the temperature and the abstain threshold of one file, from its own scores.

- Temperature: maximum likelihood on labelled validation images (Guo et al. 2017, On calibration of
  modern neural networks, arXiv:1706.04599, section 4.2), with a normal prior on ln T (mean 0,
  deviation 1). That weighs as little as a few images, and keeps T from 0 where no answer is wrong.
- Threshold: the smallest at which the answers that are left are right at the wanted rate, by the
  one-sided 95 % lower bound of Clopper and Pearson (The use of confidence or fiducial limits
  illustrated in the case of the binomial, Biometrika 26 (1934) 404-413). Wilson's bound is too high
  near 100 %, where thresholds are set. It is the best of many thresholds: in simulations of
  calibrated models (171 to 2,000 images, 90 to 98 % wanted) the true rate was below the wanted one
  in 0 to 6 % of 200 trials each, with Wilson's bound in up to 7.5 %.

Pure functions of scores; ``decider`` asks the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

FEWEST_IMAGES = 50
"""Different validation images below which the temperature stays 1: their T is mostly chance."""

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.2, 5.0

_CHANCE = 0.05
_SAME = 1e-6
"""Scores this near are equal: on another machine, or with classes in another order, they may be."""
_GRID = 33
_STEPS = 30
_TINY = 1e-30


@dataclass(frozen=True)
class Threshold:
    """Where answers begin to count; shares of the images it was chosen on, 0..1.

    ``bound``: with 95 % confidence, at least so large a share of the answers given is right.
    """

    abstain_below: float
    coverage: float
    accuracy: float
    bound: float


def negative_log_likelihood(
    scores: NDArray[np.float32], truth: NDArray[np.int64], temperature: float, floor: float = 0.0
) -> float:
    """Sum over the images of ``-ln p`` of the right class, after ``temperature``, in nats.

    Args:
        scores: ``(N, classes) float32``, 0..1, as the file gives them.
        truth: the right class indices, ``(N,) int64``.
        temperature: divides the logits.
        floor: smaller scores count as this one (see ``smidgen.runtime.decisions``).
    """
    logs = np.log(np.maximum(scores.astype(np.float64), max(floor, _TINY)))
    return _cost(logs, truth)(temperature)


def fit_temperature(
    scores: NDArray[np.float32], truth: NDArray[np.int64], floor: float = 0.0
) -> float:
    """The most likely temperature, 0.2 to 5, with four decimals. Arguments as above."""
    logs = np.log(np.maximum(scores.astype(np.float64), max(floor, _TINY)))
    cost = _cost(logs, truth)

    def penalised(log_t: float) -> float:
        return cost(math.exp(log_t)) + log_t**2 / 2

    low, high = math.log(LOWEST_TEMPERATURE), math.log(HIGHEST_TEMPERATURE)
    grid = np.linspace(low, high, _GRID)
    best = int(np.argmin([penalised(float(place)) for place in grid]))
    left, right = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, _GRID - 1)])
    found = math.exp(_golden_section(penalised, left, right))
    return round(min(max(found, LOWEST_TEMPERATURE), HIGHEST_TEMPERATURE), 4)


def _cost(logs: NDArray[np.float64], truth: NDArray[np.int64]) -> Callable[[float], float]:
    own = np.take_along_axis(logs, truth[:, None], axis=1)[:, 0]
    highest = logs.max(axis=1, keepdims=True)
    relative, own = logs - highest, own - highest[:, 0]

    def cost(temperature: float) -> float:
        total = np.log(np.exp(relative / temperature).sum(axis=1))
        return float((total - own / temperature).sum())

    return cost


def _golden_section(cost: Callable[[float], float], left: float, right: float) -> float:
    """Where ``cost``, with one minimum between the ends, is lowest."""
    ratio = (math.sqrt(5) - 1) / 2
    inner, outer = right - ratio * (right - left), left + ratio * (right - left)
    low, high = cost(inner), cost(outer)
    for _ in range(_STEPS):
        if low <= high:
            right, outer, high = outer, inner, low
            inner = right - ratio * (right - left)
            low = cost(inner)
        else:
            left, inner, low = inner, outer, high
            outer = left + ratio * (right - left)
            high = cost(outer)
    return (left + right) / 2


def proves(right: int, answers: int, wanted: float) -> bool:
    """Whether ``right`` of ``answers`` prove a share ``wanted``: their lower bound reaches it.

    The Clopper-Pearson 95 % bound does where ``right`` or more would come by chance in at most 5 %
    of samples, were each answer right with probability ``wanted`` (0..1, exclusive).
    """
    if right <= answers * wanted:  # the bound is below the share itself
        return False
    wrong = np.arange(answers - right + 1)
    factorials = _log_factorials(1 << answers.bit_length())
    logs = (
        factorials[answers]
        - factorials[wrong]
        - factorials[answers - wrong]
        + wrong * math.log1p(-wanted)
        + (answers - wrong) * math.log(wanted)
    )
    return float(np.exp(logs).sum()) <= _CHANCE


@lru_cache(maxsize=2)
def _log_factorials(count: int) -> NDArray[np.float64]:
    """``ln n!`` of 0..``count``."""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])


def lower_bound(right: int, answers: int) -> float:
    """The one-sided 95 % Clopper-Pearson lower bound of a share, 0..1, to 1e-9."""
    return _highest(lambda wanted: proves(right, answers, wanted))


def faultless_answers(wanted: float) -> int:
    """How many answers, all of them right, prove the share ``wanted``, 0..1."""
    return math.ceil(math.log(_CHANCE) / math.log(wanted))


def choose_threshold(
    confidence: NDArray[np.float32],
    right: NDArray[np.bool_],
    contents: Sequence[str],
    wanted: float,
) -> Threshold | None:
    """The smallest threshold whose answers are proven right at the rate ``wanted``, or None.

    It lies half way to the next lower score, so that the last digit of a score on another machine
    does not matter; 0 where every answer may be given. Answers on one content (the turns of a
    picture) are not independent: they are counted as one, at their own rate.

    Args:
        confidence: the top score of each image after the temperature, ``(N,) float32``, 0..1.
        right: whether that answer is right, ``(N,) bool``.
        contents: the content hash of each image.
        wanted: the share of answers given that must be right, 0..1, exclusive.
    """
    steps = _steps(confidence, right, contents)
    fitting = [step for step in steps if proves(step.right, step.pictures, wanted)]
    if not fitting:
        return None
    chosen = fitting[-1]
    return Threshold(
        chosen.threshold,
        chosen.answers / len(confidence),
        chosen.accuracy,
        lower_bound(chosen.right, chosen.pictures),
    )


def best_bound(
    confidence: NDArray[np.float32], right: NDArray[np.bool_], contents: Sequence[str]
) -> float:
    """The highest share that any threshold proves, 0..1. Arguments as of ``choose_threshold``."""
    steps = _steps(confidence, right, contents)
    return _highest(lambda wanted: any(proves(s.right, s.pictures, wanted) for s in steps))


def _highest(holds: Callable[[float], bool]) -> float:
    """The highest share at which ``holds``, which holds below and not above; 0 where nowhere."""
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


@dataclass(frozen=True)
class _Step:
    """One threshold: how many answers are left, and as how many independent ones they count."""

    threshold: float
    answers: int
    accuracy: float
    pictures: int
    right: int


def _steps(
    confidence: NDArray[np.float32], right: NDArray[np.bool_], contents: Sequence[str]
) -> list[_Step]:
    """A step for each score that differs from the next by more than rounding, the highest first."""
    order = np.argsort(-confidence, kind="stable")
    sure, hits = confidence[order].astype(np.float64), np.cumsum(right[order])
    _, first = np.unique(np.asarray(contents)[order], return_index=True)
    is_new = np.zeros(len(order), np.int64)
    is_new[first] = 1
    different = np.cumsum(is_new)
    ends = np.flatnonzero(np.append(sure[:-1] - sure[1:] > _SAME, True))[: len(sure)]
    steps = []
    for end in map(int, ends):
        answers, good, pictures = end + 1, int(hits[end]), int(different[end])
        wrong = math.ceil((answers - good) * pictures / answers)
        below = 0.0 if answers == len(sure) else float(sure[end] + sure[end + 1]) / 2
        steps.append(_Step(below, answers, good / answers, pictures, pictures - wrong))
    return steps
