"""``threads="auto"``: what is measured, when, for how long, and what is remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
import pytest

from smidgen.runtime import ArgumentInvalid, Classifier, EngineFailed, machine
from smidgen.runtime.fake import FakeEngine
from smidgen.runtime.tuning import BUDGET_NS, Choice, TunedSession, candidates, choose

MakeBundle = Callable[..., Path]
PIXELS = np.zeros((1, 8, 8, 3), np.uint8)
MANY_CORES = pytest.mark.skipif(
    machine.gather().usable_threads < 2, reason="needs two CPU cores: with one, nothing is measured"
)


class Bench:
    """Sessions on a clock of their own: a run of n threads takes ``run_ns[n]``."""

    def __init__(self, run_ns: dict[int, int], opening_ns: int = 1_000_000) -> None:
        self.now_ns = 0
        self.run_ns, self.opening_ns = run_ns, opening_ns
        self.opened: list[int] = []
        self.closed: list[int] = []
        self.runs: list[int] = []
        self.refused: Optional[int] = None

    def open(self, threads: int) -> Any:
        self.now_ns += self.opening_ns
        if threads == self.refused:
            raise EngineFailed("the device is taken")
        self.opened.append(threads)
        return BenchSession(self, threads)

    def clock(self) -> int:
        return self.now_ns

    def session(self, choice: Choice) -> TunedSession:
        return TunedSession(self.open, choice, self.clock)


class BenchSession:
    def __init__(self, bench: Bench, threads: int) -> None:
        self._bench, self._threads = bench, threads

    def run(self, pixels: Any) -> Any:
        self._bench.now_ns += self._bench.run_ns[self._threads]
        self._bench.runs.append(self._threads)
        return np.zeros((len(pixels), 2), np.float32)

    def close(self) -> None:
        self._bench.closed.append(self._threads)


@pytest.mark.parametrize(
    ("milliseconds", "best"),
    [
        ({1: 8, 2: 4, 4: 2, 6: 1}, 6),
        ({1: 8, 2: 4, 4: 2, 6: 3}, 4),
        ({1: 8, 2: 4, 4: 5, 6: 9}, 2),
        ({1: 2, 2: 4, 4: 8, 6: 9}, 1),
        ({1: 100, 2: 99, 4: 98, 6: 97}, 1),  # what saves less than 5 % is not worth a thread
        ({1: 106, 2: 100, 4: 99, 6: 98}, 2),
    ],
)
def test_the_fastest_number_is_taken(milliseconds: dict[int, int], best: int) -> None:
    bench = Bench({threads: value * 100_000 for threads, value in milliseconds.items()})
    session = bench.session(Choice(4, (1, 2, 4, 6)))
    session.run(PIXELS)
    assert (bench.runs, session.threads) == ([4], 4)  # the first answer waits for nothing
    session.run(PIXELS)
    assert session.threads == best
    assert bench.runs[-1] == best
    assert sorted(bench.opened) == [1, 2, 4, 6]
    assert sorted([*bench.closed, best]) == [1, 2, 4, 6]
    spent = bench.now_ns
    session.run(PIXELS)
    assert bench.now_ns - spent == milliseconds[best] * 100_000  # measured once
    session.close()
    assert sorted(bench.closed) == [1, 2, 4, 6]


@pytest.mark.parametrize("milliseconds", [0.01, 3, 20, 100, 300, 499, 501, 5_000])
@pytest.mark.parametrize("opening", [0.1, 50, 600, 2_000])
def test_it_takes_a_second_at_most(milliseconds: float, opening: float) -> None:
    run_ns = {count: int(4 / count * milliseconds * 1e6) for count in (1, 2, 4)}
    bench = Bench({**run_ns, 8: run_ns[4]}, int(opening * 1e6))
    session = bench.session(Choice(4, (1, 2, 4, 8)))
    session.run(PIXELS)
    before = bench.now_ns
    session.tune(PIXELS)
    assert bench.now_ns - before <= BUDGET_NS
    assert session.threads == 4
    # two runs with the number in use, and two with 8 threads in half the time
    assert (len(bench.opened) > 1) == (opening + 3 * milliseconds < 1000)


def test_a_number_that_cannot_be_opened_is_passed_over() -> None:
    bench = Bench({1: 9_000_000, 2: 5_000_000, 4: 1_000_000})
    bench.refused = 4
    session = bench.session(Choice(1, (1, 2, 4)))
    session.tune(PIXELS)
    assert (session.threads, bench.closed) == (2, [1])


def test_nothing_is_measured_after_the_end_or_where_the_number_is_known(tmp_path: Path) -> None:
    for choice in (Choice(2), Choice(2, (1, 2), tmp_path / "x")):
        bench = Bench({1: 1, 2: 1})
        session = bench.session(choice)
        if choice.candidates:
            session.close()
        session.tune(PIXELS)
        assert bench.opened == [2]
    assert list(tmp_path.iterdir()) == []


def test_the_candidates() -> None:
    found = [candidates(usable) for usable in (1, 2, 3, 4, 6, 8, 9)]
    assert found == [
        (1,), (1, 2), (1, 2, 3), (1, 2, 4), (1, 2, 4, 6), (1, 2, 4, 8), (1, 2, 4, 8, 9)
    ]  # fmt: skip


@pytest.mark.parametrize("given", ["0", "-1", "two", "1.5", "257", "9" * 5000, " "])
def test_the_environment_says_a_number(given: str) -> None:
    with pytest.raises(ArgumentInvalid, match=r"SMIDGEN_THREADS = .*whole number, 1 to 256"):
        choose("auto", (), {"SMIDGEN_THREADS": given})


def test_a_given_number_wins() -> None:
    assert choose("auto", (), {"SMIDGEN_THREADS": "3"}) == Choice(3)
    assert choose(2, (), {"SMIDGEN_THREADS": "3"}) == Choice(2)
    with pytest.raises(ArgumentInvalid, match="expected 'auto' or a whole number"):
        choose("many", ())


@MANY_CORES
def test_a_choice_is_remembered_for_one_model_engine_and_machine(tmp_path: Path) -> None:
    environ = {"SMIDGEN_CACHE": str(tmp_path / "not" / "yet")}
    identity = ("payload", "fake", "1.0", "EngineOptions()")
    first = choose("auto", identity, environ)
    assert first.candidates == candidates(machine.gather().usable_threads)
    assert first.memory is not None
    assert first.memory.parent == tmp_path / "not" / "yet" / "threads"
    bench = Bench({count: 1_000_000 // count for count in first.candidates})
    bench.session(first).tune(PIXELS)
    best = max(first.candidates)
    assert choose("auto", identity, environ) == Choice(best)
    assert [path.name for path in first.memory.parent.iterdir()] == [first.memory.name]
    for index in range(len(identity)):
        other = (*identity[:index], "other", *identity[index + 1 :])
        assert choose("auto", other, environ).memory != first.memory


@MANY_CORES
@pytest.mark.parametrize("damage", [b"", b"0", b"-1", b"1.0", b"99999", b"\xff\xfe", b"2" * 10**6])
def test_a_damaged_cache_is_measured_again(tmp_path: Path, damage: bytes) -> None:
    environ = {"XDG_CACHE_HOME": str(tmp_path)}
    choice = choose("auto", ("a",), environ)
    assert choice.memory is not None
    choice.memory.parent.mkdir(parents=True)
    choice.memory.write_bytes(damage)
    assert choose("auto", ("a",), environ) == choice
    Bench({count: count for count in choice.candidates}).session(choice).tune(PIXELS)
    assert choose("auto", ("a",), environ) == Choice(1)


@MANY_CORES
@pytest.mark.parametrize("place", ["a file/in the way", "folder/where the file should be", "\0"])
def test_a_cache_that_cannot_be_used_is_no_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "a file").write_text("")
    environ = {"SMIDGEN_CACHE": str(tmp_path / place)}
    choice = choose("auto", ("a",), environ)
    if place.startswith("folder"):
        assert choice.memory is not None
        choice.memory.mkdir(parents=True)
    session = Bench({count: count for count in choice.candidates}).session(choice)
    session.tune(PIXELS)
    assert session.threads == 1
    assert choose("auto", ("a",), environ).candidates == choice.candidates


@MANY_CORES
@pytest.mark.parametrize("backend", ["auto", FakeEngine()])
def test_a_classifier_measures_before_its_second_answer(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: Any
) -> None:
    monkeypatch.setenv("SMIDGEN_CACHE", str(tmp_path / "cache"))
    path = make_bundle("onnx")
    folder = tmp_path / "cache" / "threads"
    with Classifier(path, backend=backend) as classifier:
        first = classifier.classify(PIXELS[0])
        assert not folder.exists()
        assert classifier.classify(PIXELS[0]).top == first.top
        (file,) = folder.iterdir()
        assert file.read_text() == f"{classifier.threads}\n"
    with Classifier(path, backend=backend) as again:
        assert again.threads == classifier.threads
    file.write_text("damaged")
    with Classifier(path, backend=backend, threads=1) as fixed:
        fixed.tune()
        assert (fixed.threads, file.read_text()) == (1, "damaged")
    with Classifier(path, backend=backend) as service:
        service.tune()
        assert file.read_text() == f"{service.threads}\n"


def test_a_slow_first_answer_is_not_remembered_as_a_slow_model(tmp_path: Path) -> None:
    """A cold start can take long: nothing is compared then, and nothing is written."""
    bench = Bench({1: 600_000_000, 2: 600_000_000})
    session = bench.session(Choice(2, (1, 2), tmp_path / "file"))
    session.run(PIXELS)
    session.run(PIXELS)
    assert (bench.opened, bench.runs, list(tmp_path.iterdir())) == ([2], [2, 2], [])
