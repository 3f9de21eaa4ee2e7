"""Statistics of paired answers: pure functions from right and wrong to intervals and p-values.

Both models answer the same images, so the answers come in pairs. Only the discordant pairs carry
information about the difference: ``lost`` images that the reference has right and the candidate
wrong, ``gained`` images the other way round. The drop is ``(lost - gained) / images``.

- Interval: Tango's score interval for paired differences (T. Tango, Equivalence test and confidence
  interval for the difference in proportions for the paired-sample design, Statistics in Medicine 17
  (1998) 891-908). It keeps its coverage near zero discordant pairs, where a Wald interval is empty
  and would let any file pass on a handful of images (Fagerland, Lydersen, Laake, Recommended tests
  and confidence intervals for paired binomial proportions, Statistics in Medicine 33 (2014)
  2850-2875). Its coverage is 94-96 % from about ten expected discordant pairs on, at five to eight
  93.5-95.5 % (counts are whole numbers), at four 96-97 % and at two 99 %.
- Test: McNemar's, exact, and with mid-p (Fagerland, Lydersen, Laake, The McNemar test for binary
  matched-pairs data: mid-p and asymptotic are better than exact conditional, BMC Medical Research
  Methodology 13 (2013) 91).
- Several answers on one picture (its four turns) are not independent. The variance of the drop is
  then taken over clusters (pictures), as for the mean of clusters of any size (Obuchowski, On the
  comparison of correlated proportions for clustered data, Statistics in Medicine 17 (1998)
  1495-1507). Its ratio to the variance of independent answers is the design effect; counts divided
  by it go into the interval (Rao, Scott, A simple method for the analysis of clustered binary data,
  Biometrics 48 (1992) 577-585). The test flips the signs of whole clusters.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np
from numpy.typing import NDArray

from smidgen.export.errors import GateError

Z_95 = 1.959963984540054
"""The 97.5 % quantile of the normal distribution: two-sided 95 %."""


@dataclass(frozen=True)
class Pairs:
    """Counts over ``images`` paired answers; ``lost`` and ``gained`` are the discordant pairs.

    So many answers as ``design_effect`` says weigh as much as one independent answer.
    """

    images: int
    reference_right: int
    candidate_right: int
    lost: int
    gained: int
    design_effect: float = 1.0

    def interval(self, scale: float = 1.0) -> tuple[float, float]:
        """The 95 % interval of the drop, shares in -1..1, had there been ``scale`` times as many.

        The rates of discordant pairs stay as they are.
        """
        weight = scale / self.design_effect
        return tango_interval(self.lost * weight, self.gained * weight, self.images * weight)


@dataclass(frozen=True)
class McNemar:
    """Two-sided p-values that losses and gains are equally likely; ``mid_p`` is less conservative.

    ``exact`` never rejects too often; ``mid_p`` counts half of the outcomes just as extreme as the
    one that came. Both are 1 where no pair is discordant.
    """

    exact: float
    mid_p: float


def count_pairs(
    reference_right: NDArray[np.bool_],
    candidate_right: NDArray[np.bool_],
    clusters: Optional[Sequence[str]] = None,
) -> Pairs:
    """Count the pairs of two arrays ``(N,) bool`` that say which images were answered right.

    Args:
        reference_right: of the reference.
        candidate_right: of the candidate, on the same images.
        clusters: a name for each image; answers under one name are not independent. None: all are.

    Raises:
        GateError: no images, or arrays of different lengths.
    """
    shapes = [reference_right.shape, candidate_right.shape]
    shapes += [] if clusters is None else [(len(clusters),)]
    if len(set(shapes)) != 1 or reference_right.ndim != 1:
        raise GateError(
            f"the gate got answers of shapes {', '.join(map(str, shapes))}: expected one for each "
            "image from each; export again"
        )
    if reference_right.size == 0:
        raise GateError(
            "the gate got no held-out images, so nothing was verified: add images to the test split"
        )
    return Pairs(
        images=int(reference_right.size),
        reference_right=int(reference_right.sum()),
        candidate_right=int(candidate_right.sum()),
        lost=int((reference_right & ~candidate_right).sum()),
        gained=int((~reference_right & candidate_right).sum()),
        design_effect=design_effect(reference_right, candidate_right, clusters),
    )


def tango_interval(
    lost: float, gained: float, images: float, z: float = Z_95
) -> tuple[float, float]:
    """Score interval of ``(lost - gained) / images``, as shares in -1..1.

    ``z`` is the normal quantile (1.96 for two-sided 95 %). Real-valued counts are allowed.

    Raises:
        GateError: no images, or more discordant pairs than images.
    """
    if images <= 0 or lost < 0 or gained < 0 or lost + gained > images * (1 + 1e-12):
        raise GateError(
            f"no interval for {lost:g} lost and {gained:g} gained of {images:g} images: "
            "expected at least one image and no more discordant pairs than images"
        )
    estimate = (lost - gained) / images

    def end(sign: float) -> float:
        inside, outside = estimate, sign
        for _ in range(100):
            middle = (inside + outside) / 2
            if abs(_score(lost, gained, images, middle)) <= z:
                inside = middle
            else:
                outside = middle
        return inside

    return end(-1.0), end(1.0)


def _score(lost: float, gained: float, images: float, difference: float) -> float:
    """Tango's statistic for a true ``difference``: asymptotically standard normal under it."""
    numerator = lost - gained - images * difference
    a = 2 * images
    b = -lost - gained + (2 * images - lost + gained) * difference
    c = -gained * difference * (1 - difference)
    gained_rate = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = images * (2 * gained_rate + difference * (1 - difference))
    if variance <= 0:
        return 0.0 if abs(numerator) < 1e-12 else math.copysign(math.inf, numerator)
    return numerator / math.sqrt(variance)


def design_effect(
    reference_right: NDArray[np.bool_],
    candidate_right: NDArray[np.bool_],
    clusters: Optional[Sequence[str]] = None,
) -> float:
    """How many answers weigh as much as one independent answer: 1 where no name repeats.

    The variance of the drop over clusters, divided by that of independent answers. It is kept
    between 1, so that chance never makes the interval narrower than that of independent answers,
    and the value for answers that are all alike within a cluster, the sum of the squared sizes over
    the sum of the sizes; that value also stands where no pair is discordant, and nothing is known.

    Args as of ``count_pairs``.
    """
    if clusters is None:
        return 1.0
    _, member = np.unique(np.asarray(clusters), return_inverse=True)
    sizes = np.bincount(member).astype(np.float64)
    images, groups = float(sizes.sum()), len(sizes)
    if groups == images:
        return 1.0
    nets = _nets(reference_right, candidate_right, member)
    largest = float((sizes**2).sum() / images)
    drop = float(nets.sum()) / images
    discordant = float((reference_right != candidate_right).sum())
    independent = discordant - images * drop**2
    if independent <= 0 or groups == 1:
        return largest
    residuals = nets - drop * sizes
    clustered = groups / (groups - 1) * float((residuals**2).sum())
    return min(max(clustered / independent, 1.0), largest)


def _nets(
    reference_right: NDArray[np.bool_], candidate_right: NDArray[np.bool_], member: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Lost less gained of each cluster; ``member`` is the cluster's index of each image."""
    signs = reference_right.astype(np.float64) - candidate_right
    return np.bincount(member, weights=signs).astype(np.float64)


def mcnemar(
    reference_right: NDArray[np.bool_],
    candidate_right: NDArray[np.bool_],
    clusters: Optional[Sequence[str]] = None,
) -> McNemar:
    """The exact McNemar test: are losses and gains equally likely?

    Without clusters it is the two-sided binomial test with 1/2 on the discordant pairs. With them
    it is the exact sign-flip test on each cluster's net loss, of which the former is the case of
    one image in each: were the models alike, each cluster could as well have come out the other
    way round, independently of the others.

    Args as of ``count_pairs``.
    """
    if clusters is None:
        nets = reference_right.astype(np.int64) - candidate_right.astype(np.int64)
    else:
        _, member = np.unique(np.asarray(clusters), return_inverse=True)
        nets = np.rint(_nets(reference_right, candidate_right, member)).astype(np.int64)
    sizes = Counter(int(size) for size in np.abs(nets) if size)
    return _sign_flip(sizes, abs(int(nets.sum())))


def _sign_flip(sizes: Counter[int], observed: int) -> McNemar:
    """P-values of a sum of ``observed`` among the sums of ``sizes`` (size: count) by random signs.

    The distribution is the convolution of one binomial a size.
    """
    if not sizes:
        return McNemar(exact=1.0, mid_p=1.0)
    chances = np.ones(1)
    for size, count in sorted(sizes.items()):
        steps = np.zeros(2 * size * count + 1)
        steps[:: 2 * size] = _fair_binomial(count)
        chances = np.convolve(chances, steps)
    sums = np.abs(np.arange(len(chances)) - (len(chances) - 1) // 2)
    beyond, equal = float(chances[sums > observed].sum()), float(chances[sums == observed].sum())
    return McNemar(exact=min(1.0, beyond + equal), mid_p=min(1.0, beyond + equal / 2))


def _fair_binomial(count: int) -> NDArray[np.float64]:
    """The chances of 0..``count`` heads of fair coins, ``(count + 1,) float64``."""
    logs = [
        math.lgamma(count + 1) - math.lgamma(heads + 1) - math.lgamma(count - heads + 1)
        for heads in range(count + 1)
    ]
    return np.exp(np.asarray(logs) - count * math.log(2.0))
