"""One reason why a runtime would not run a model file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """What the file has, what the target has, and what to do; ``operator`` empty: the whole file.

    The four texts fit into one line, which ``str`` gives.
    """

    operator: str
    found: str
    available: str
    remedy: str

    def __str__(self) -> str:
        subject = f"{self.operator} " if self.operator else ""
        return f"{subject}({self.found}; the target has {self.available}): {self.remedy}"
