"""A Device for tests: every answer is scripted, every call is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from smidgen.bench.errors import DeviceError
from smidgen.bench.facts import DeviceFacts

FAKE_FACTS = DeviceFacts(
    host="fake-host",
    cpu_model="Fake CPU 1 GHz",
    cores=2,
    cpu_flags=("neon",),
    memory_bytes=1 << 30,
    architecture="fake64",
    os="FakeOS 1",
    kernel="1.0",
    python="3.11.0",
    governor="performance",
    load_average_1min=0.25,
)


class FakeDevice:
    """Answers ``run(argv)`` with what ``answer(argv)`` returns, or raises the error it returns."""

    def __init__(
        self,
        answer: Callable[[Sequence[str]], str | DeviceError],
        *,
        facts: DeviceFacts = FAKE_FACTS,
    ) -> None:
        self._answer = answer
        self._facts = facts
        self.pushed: list[Path] = []
        self.calls: list[tuple[str, ...]] = []

    @property
    def name(self) -> str:
        return "fake"

    def facts(self) -> DeviceFacts:
        return self._facts

    def push(self, path: Path) -> str:
        self.pushed.append(path)
        return f"/fake/{path.name}"

    def run(self, argv: Sequence[str]) -> str:
        self.calls.append(tuple(argv))
        answer = self._answer(argv)
        if isinstance(answer, DeviceError):
            raise answer
        return answer
