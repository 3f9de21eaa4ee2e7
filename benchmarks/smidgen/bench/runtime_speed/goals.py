"""The goals of the runtime beside what was measured."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smidgen.bench.quantization.text_table import Table
from smidgen.bench.runtime_speed.contest import Contest, Sample
from smidgen.bench.statistics import Ratio, median_ratio

OURS, BY_HAND, MEDIAPIPE = "classify()", "by hand", "MediaPipe"
STARTED, STARTED_BY_HAND = "start: classify()", "start: by hand"
SMALL, LARGE = "500x375", "12 megapixels"

AT_MOST, AT_LEAST = "at most", "at least"
MB = 1e6


def pair(size: str) -> str:
    """The contender that runs classify() and the loop written by hand by turns."""
    return f"{size}: classify() and by hand"


def mediapipe(size: str) -> str:
    """MediaPipe on that photo."""
    return f"{size}: {MEDIAPIPE}"


@dataclass(frozen=True)
class Row:
    """One goal. ``value`` and its bounds are ratios, or in ``unit``; None: not measured."""

    what: str
    ours: str
    other: str
    value: float | None
    low: float | None
    high: float | None
    unit: str
    sense: str
    goal: float

    @property
    def verdict(self) -> str:
        """``met`` or ``missed`` by the value; ``open`` where the interval holds both."""
        if self.value is None:
            return "not measured"
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        if self.sense == AT_MOST:
            return "met" if high <= self.goal else "missed" if low > self.goal else "open"
        return "met" if low >= self.goal else "missed" if high < self.goal else "open"

    def cells(self) -> tuple[str, ...]:
        """As text, for the table."""
        value = "-" if self.value is None else f"{self.value:.3g}{self.unit}"
        if self.low is not None and self.high is not None:
            value += f" [{self.low:.3g}, {self.high:.3g}]"
        goal = f"{self.sense} {self.goal:g}{self.unit}"
        return (self.what, self.ours, self.other, value, goal, self.verdict)


def rows(contest: Contest, installed: Mapping[str, int]) -> list[Row]:
    """All goals of the runtime; those of contenders that failed are not measured."""
    samples = contest.samples
    small, large = _runs(samples, pair(SMALL), OURS), _runs(samples, pair(LARGE), OURS)
    first = _firsts(samples, STARTED)
    return [
        _times(
            f"classify(), {SMALL}, over a loop by hand",
            (small, _runs(samples, pair(SMALL), BY_HAND)),
            (AT_MOST, 1.05),
        ),
        _times(
            "import + load + first answer, over by hand",
            (first, _firsts(samples, STARTED_BY_HAND)),
            (AT_MOST, 1.10),
        ),
        _times(
            f"as fast as MediaPipe, {SMALL}",
            (small, _runs(samples, mediapipe(SMALL), MEDIAPIPE)),
            (AT_LEAST, 1.15),
        ),
        _times(
            f"as fast as MediaPipe, {LARGE}",
            (large, _runs(samples, mediapipe(LARGE), MEDIAPIPE)),
            (AT_LEAST, 4.5),
        ),
        _times(
            "as fast as MediaPipe, import + load + first answer",
            (first, _firsts(samples, mediapipe(SMALL))),
            (AT_LEAST, 5.0),
        ),
        _times(
            f"as fast as full decoding by hand, {LARGE}",
            (large, _runs(samples, pair(LARGE), BY_HAND)),
            (AT_LEAST, 4.0),
        ),
        _seconds(samples.get(STARTED, [])),
        _megabytes(samples.get(STARTED, [])),
        _installed(installed),
    ]


def table_of(found: Sequence[Row]) -> Table:
    """One line a goal."""
    headings = ("what", "classify()", "other", "value [95 %]", "goal", "verdict")
    return Table(headings, tuple(row.cells() for row in found))


def as_mapping(contest: Contest, found: Sequence[Row], installed: Mapping[str, int]) -> object:
    """All that was measured, for JSON."""
    return {
        "rows": [{**dataclasses.asdict(row), "verdict": row.verdict} for row in found],
        "installed_bytes": dict(installed),
        "samples": {
            name: [dataclasses.asdict(sample) for sample in taken]
            for name, taken in contest.samples.items()
        },
        "failures": contest.failures,
    }


_Rounds = list[list[int]]


def _runs(samples: Mapping[str, Sequence[Sample]], contender: str, what: str) -> _Rounds:
    return [sample.runs_ns[what] for sample in samples.get(contender, [])]


def _firsts(samples: Mapping[str, Sequence[Sample]], contender: str) -> _Rounds:
    return [[sample.first_ns] for sample in samples.get(contender, [])]


def _times(what: str, both: tuple[_Rounds, _Rounds], goal: tuple[str, float]) -> Row:
    """Ours over theirs where that should be at most the goal, else theirs over ours."""
    ours, theirs = both
    sense, limit = goal
    over, under = (ours, theirs) if sense == AT_MOST else (theirs, ours)
    ratio = median_ratio(over, under) or Ratio(float("nan"), None, None)
    value = None if ratio.value != ratio.value else ratio.value
    return Row(what, _ms(ours), _ms(theirs), value, ratio.low, ratio.high, "x", sense, limit)


def _ms(rounds: _Rounds) -> str:
    values = [value for block in rounds for value in block]
    return f"{statistics.median(values) / 1e6:.2f} ms" if values else "-"


def _seconds(samples: Sequence[Sample]) -> Row:
    what = "process start to first answer"
    values = [sample.started_ns / 1e9 for sample in samples]
    value = statistics.median(values) if values else None
    low, high = (min(values), max(values)) if values else (None, None)
    return Row(what, "", "", value, low, high, " s", AT_MOST, 0.2)


def _megabytes(samples: Sequence[Sample]) -> Row:
    values = [sample.peak_rss_bytes / MB for sample in samples]
    value = statistics.median(values) if values else None
    low, high = (min(values), max(values)) if values else (None, None)
    return Row("peak memory", "", "", value, low, high, " MB", AT_MOST, 60.0)


def _installed(installed: Mapping[str, int]) -> Row:
    size = sum(installed.values()) / MB if installed else None
    what = "installed: runtime, LiteRT, numpy, Pillow and what they need"
    return Row(what, "", "", size, None, None, " MB", AT_MOST, 160.0)
