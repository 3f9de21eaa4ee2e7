"""What a network is worth on a split: the numbers of ``test_metrics.json``.

Percentages are 0..100; intervals are Wilson's, 95 %.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClassMetrics:
    """One class. What has no value (a class without images) is None.

    ``images`` is its support. ``precision_percent``: of the images answered with this class, those
    that are of it; 0 where none was answered so. ``recall_percent``: of its images, those answered
    with it. ``f1_percent``: their harmonic mean.
    """

    label: str
    images: int
    precision_percent: float | None
    recall_percent: float | None
    recall_low_percent: float | None
    recall_high_percent: float | None
    f1_percent: float | None


@dataclass(frozen=True)
class ReliabilityBin:
    """The images whose highest probability lies in ``(low, high]``.

    ``confidence`` is the mean of that probability, ``accuracy`` the share answered rightly, both
    0..1; None where there is no image.
    """

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class OrientationErrors:
    """Wrong turns of the orientation task by kind; percentages of all images, so they add up.

    ``half_turn_0_180`` counts 0 answered 180 and 180 answered 0, ``half_turn_90_270`` likewise;
    ``quarter_turn`` counts answers that are a quarter turn off.
    """

    half_turn_0_180: int
    half_turn_0_180_percent: float
    half_turn_90_270: int
    half_turn_90_270_percent: float
    quarter_turn: int
    quarter_turn_percent: float


@dataclass(frozen=True)
class Evaluation:
    """A network on one split.

    ``loss`` is the negative log likelihood (mean cross entropy) in nats. ``confusion[i][j]`` counts
    images of class ``i`` that were answered ``j``. ``top_k_percent[k - 1]`` is the share of images
    whose label is among the ``k`` most probable classes. Macro averages are over the classes that
    have images. ``calibration_error_percent`` is the expected calibration error over
    ``reliability``, 15 bins of equal width (Guo et al. 2017).
    """

    images: int
    top1_percent: float
    top1_low_percent: float
    top1_high_percent: float
    loss: float
    confusion: tuple[tuple[int, ...], ...]
    top_k_percent: tuple[float, ...] = ()
    macro_precision_percent: float | None = None
    macro_recall_percent: float | None = None
    macro_f1_percent: float | None = None
    calibration_error_percent: float | None = None
    reliability: tuple[ReliabilityBin, ...] = ()
    classes: tuple[ClassMetrics, ...] = ()
    orientation: OrientationErrors | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the network's outputs."""
        return tuple(item.label for item in self.classes)
