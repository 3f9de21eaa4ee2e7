"""What can go wrong in the benchmarks, as one tree.

    SmidgenError
    └── BenchError                every error that this room raises on purpose
        ├── DeviceError           a Device did not do what was asked of it
        │   ├── DeviceRunFailed   the program on it ended badly, was killed, or hung
        │   └── DeviceAnswerBad   the program ended well and printed something else than a sample
        ├── ContenderFailed       who takes part in a comparison did not end well
        ├── JournalDamaged        a file of Measurements holds lines that are none
        └── NothingToMeasure      no Bundle was named

Every message is one line: what was wrong, what was expected, what to do.
"""

from __future__ import annotations

from smidgen.runtime.errors import SmidgenError


class BenchError(SmidgenError):
    """Root of the errors of ``smidgen.bench``."""


class DeviceError(BenchError):
    """A Device did not do what was asked of it."""


class DeviceRunFailed(DeviceError):
    """The program on the Device ended with an error, was killed, or ran past its time limit."""


class DeviceAnswerBad(DeviceError):
    """The program on the Device ended well, but its output is not a timing sample."""


class ContenderFailed(BenchError):
    """A training or quantizer that takes part in a comparison did not start, or ended badly."""


class JournalDamaged(BenchError):
    """A file of Measurements holds a complete line that is not a Measurement."""


class NothingToMeasure(BenchError):
    """The list of Bundles is empty."""
