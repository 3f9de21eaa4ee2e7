"""How many threads one inference takes: measured once per device and Bundle, then remembered.

``threads="auto"`` begins with the number that is remembered, else with up to four. Measured is
before the second answer, for at most a second in all, so that whoever wants one answer does not
wait. Candidates are 1, 2, 4, ... and as many as can run at once (affinity and control groups
count); more are taken where they save 5 %.

The number stands in ``$SMIDGEN_CACHE/threads``, else ``$XDG_CACHE_HOME/smidgen/threads``, else
``~/.cache/smidgen/threads``, in a file named by the hash of model, engine, version, options and
processor. A cache that cannot be read or written is no error. ``SMIDGEN_THREADS=2`` in the
environment is what "auto" means then; nothing is measured.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional, Union

from smidgen.runtime.engine_checks import MAX_THREADS
from smidgen.runtime.errors import ArgumentInvalid, EngineError, OutputError

if TYPE_CHECKING:
    from smidgen.runtime.engine import Pixels, Scores, Session

BUDGET_NS = 1_000_000_000
"""Of all the measuring, opening sessions included."""
WORTH = 1.05
"""How many times as fast more threads must be: they cost power, and other programs want them."""
_RUNS = 20
_FIRST_GUESS = 4


@dataclass(frozen=True)
class Choice:
    """``threads`` to begin with, ``candidates`` still to be compared, ``memory``: their file."""

    threads: int
    candidates: tuple[int, ...] = ()
    memory: Optional[Path] = None


def choose(
    threads: Union[int, str], identity: Sequence[str], environ: Mapping[str, str] = os.environ
) -> Choice:
    """What to begin with.

    Args:
        threads: a number (the engine checks it), or ``"auto"``.
        identity: what the best number depends on, beside the machine.

    Raises:
        ArgumentInvalid: another text, or a ``SMIDGEN_THREADS`` that is no number of threads.
    """
    if not isinstance(threads, str):
        return Choice(threads)
    if threads != "auto":
        raise ArgumentInvalid(f"threads = {threads!r}: expected 'auto' or a whole number")
    given = environ.get("SMIDGEN_THREADS", "")
    if given:
        if not (given.isdecimal() and 1 <= int(given[:9]) <= MAX_THREADS):
            raise ArgumentInvalid(
                f"SMIDGEN_THREADS = {given!r}: expected a whole number, 1 to {MAX_THREADS}"
            )
        return Choice(int(given))
    from smidgen.runtime import machine

    here = machine.gather()
    usable = min(here.usable_threads, MAX_THREADS)
    if usable == 1:
        return Choice(1)
    key = "\n".join((*identity, here.cpu_model, here.architecture, str(usable)))
    memory = _memory(hashlib.sha256(key.encode("utf-8", "replace")).hexdigest(), environ)
    remembered = _recall(memory, usable)
    if remembered is not None:
        return Choice(remembered)
    return Choice(min(_FIRST_GUESS, usable), candidates(usable), memory)


def candidates(usable: int) -> tuple[int, ...]:
    """1, 2, 4, ... below ``usable``, and ``usable``."""
    powers = (1 << power for power in range(usable.bit_length()))
    return (*(power for power in powers if power < usable), usable)


class TunedSession:
    """Satisfies ``Session``: before its second ``run`` it measures what ``choice`` leaves open."""

    def __init__(
        self,
        opener: Callable[[int], Session],
        choice: Choice,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        """Raises what ``opener``, from a number of threads to a session, raises."""
        self.threads = choice.threads
        self._opener, self._clock = opener, clock
        self._candidates, self._memory = choice.candidates, choice.memory
        self._answer_ns = 0  # of the first answer; 0: there was none yet
        start = clock()
        self._session = opener(choice.threads)
        self._opening_ns = clock() - start

    def run(self, pixels: Pixels) -> Scores:
        """See Session."""
        if not self._candidates or len(pixels) == 0:
            return self._session.run(pixels)
        if self._answer_ns:
            self.tune(pixels[:1])
        start = self._clock()
        scores = self._session.run(pixels)
        self._answer_ns = max(1, (self._clock() - start) // len(pixels))
        return scores

    def close(self) -> None:
        """See Session."""
        self._candidates = ()
        self._session.close()

    def tune(self, pixels: Pixels) -> None:
        """Compare the candidates, once, on ``(1, H, W, 3) uint8``."""
        rest = [one for one in self._candidates if one != self.threads]
        self._candidates = ()
        if not rest or 2 * self._answer_ns > BUDGET_NS:  # no time to compare anything
            return
        end = self._clock() + BUDGET_NS
        best_ns = self._median_ns(self._session, pixels, len(rest) + 1, end)
        one_thread_ns = best_ns * self.threads  # at worst
        for index, threads in enumerate(rest):
            if self._clock() + self._opening_ns + 2 * one_thread_ns // threads > end:
                continue
            with contextlib.suppress(EngineError):  # such as a device that has room for one session
                best_ns = self._challenge(threads, best_ns, pixels, (len(rest) - index, end))
        if self._memory is not None:
            _remember(self._memory, self.threads)

    def _challenge(
        self, threads: int, best_ns: int, pixels: Pixels, time_left: tuple[int, int]
    ) -> int:
        """Keep the better one of two sessions; returns its nanoseconds."""
        loser = self._opener(threads)
        try:
            spent_ns = self._median_ns(loser, pixels, *time_left)
            more = threads > self.threads
            if spent_ns * WORTH < best_ns if more else spent_ns <= best_ns * WORTH:
                self._session, loser = loser, self._session
                self.threads, best_ns = threads, spent_ns
        finally:
            loser.close()
        return best_ns

    def _median_ns(self, session: Session, pixels: Pixels, shares: int, end: int) -> int:
        """Of up to 20 runs, as many as fit one of ``shares`` until ``end``; the first is apart."""
        share_end = self._clock() + (end - self._clock()) // shares
        spent: list[int] = []
        while len(spent) <= _RUNS:
            before = self._clock()
            if spent and before + spent[-1] > (end if len(spent) == 1 else share_end):
                break
            session.run(pixels)
            spent.append(self._clock() - before)
        counted = sorted(spent[1:] or spent)
        return counted[len(counted) // 2]


def _memory(key: str, environ: Mapping[str, str]) -> Optional[Path]:
    """The file of ``key``; None where the user has no home."""
    given, base = environ.get("SMIDGEN_CACHE"), Path(environ.get("XDG_CACHE_HOME", ""))
    try:
        if given:
            return Path(given).expanduser().absolute() / "threads" / key
        return (base if base.is_absolute() else Path.home() / ".cache") / "smidgen/threads" / key
    except (RuntimeError, OSError):
        return None


def _recall(memory: Optional[Path], usable: int) -> Optional[int]:
    """The number in the file; None unless it is one from 1 to ``usable``."""
    try:
        if memory is None or not memory.is_file():
            return None
        with open(memory, "rb") as stream:
            text = stream.read(16).strip()
    except (OSError, ValueError):
        return None
    return int(text) if text.isdigit() and 1 <= int(text) <= usable else None


def _remember(memory: Path, threads: int) -> None:
    from smidgen.runtime.files import write_text

    with contextlib.suppress(OutputError, OSError, ValueError):
        write_text(memory, f"{threads}\n")
