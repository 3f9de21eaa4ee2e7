"""What can go wrong on the command line, as one tree.

    SmidgenError
    └── CliError                  every error that this room raises on purpose
        ├── UsageError            the command line is wrong (exit status 2)
        └── NothingThere          a Run without Bundles where one is needed

The other rooms' errors pass through; ``endings.py`` turns each into one line and an exit status.
"""

from __future__ import annotations

from smidgen.runtime.errors import SmidgenError


class CliError(SmidgenError):
    """Root of the errors of ``smidgen.cli``."""


class UsageError(CliError):
    """The command line is wrong: nothing was started."""


class NothingThere(CliError):
    """The folder holds no Bundle, and one is needed."""
