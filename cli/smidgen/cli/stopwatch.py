"""The ladder's stopwatch: the benchmark room's own measuring, on a Device."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from smidgen.bench.device import Device
from smidgen.bench.errors import DeviceRunFailed
from smidgen.bench.local import LocalDevice
from smidgen.bench.measure import measure
from smidgen.bench.recipe import BenchRecipe
from smidgen.cli.errors import UsageError

_RECIPE = BenchRecipe(rounds=3, runs=30, warmup=5, threads=1)


class DeviceStopwatch:
    """A ``Stopwatch``: the median of one inference over three fresh processes, one thread."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def milliseconds(self, bundle: Path) -> float:
        """See ``Stopwatch``. Raises DeviceRunFailed where the device cannot run it."""
        with tempfile.TemporaryDirectory(prefix="smidgen-ladder-") as folder:
            sweep = measure(
                [bundle],
                _RECIPE,
                Path(folder, "measurements.jsonl"),
                device=self._device,
                progress=lambda _: None,
            )
        if sweep.failures:
            raise DeviceRunFailed(sweep.failures[0].reason)
        return statistics.median(ns for row in sweep.rows for ns in row.sample.inference_ns) / 1e6


def stopwatch_on(name: str) -> DeviceStopwatch:
    """The stopwatch of a device by its name. Raises UsageError for one that is not known."""
    if name != "local":
        raise UsageError(f"--on {name}: known devices: local")
    return DeviceStopwatch(LocalDevice())
