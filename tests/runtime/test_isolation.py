"""Engines in a child process: whatever the child does, the host gets an answer or EngineFailed."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from smidgen.runtime import Bundle, EngineFailed, EngineMissing
from smidgen.runtime.engine import EngineOptions
from smidgen.runtime.engines import ENGINES
from smidgen.runtime.fake import FakeEngine, brightness_scores
from smidgen.runtime.isolation import Child, IsolatedEngine, IsolatedSession, isolated

HERE = Path(__file__).parent
DEEDS = ("ANSWER", "SEGFAULT", "EXIT", "HANG", "GARBAGE", "ABORT", "CHATTER", "SHORT", "NAN",
         "LEAK", "CLOSE", "LONG")  # fmt: skip
Manifests = Callable[..., Any]
linux = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc on this system")


@pytest.fixture(scope="module")
def manifest(make_manifest: Manifests) -> Any:
    return make_manifest("onnx", "float32", "")


@pytest.fixture(scope="module")
def engine() -> Iterator[IsolatedEngine]:
    """The stand-in; its child finds it, as it takes over this process's ``sys.path``."""
    sys.path.insert(0, str(HERE))
    yield IsolatedEngine(FakeEngine(), 20.0, "hostile_engine:HostileEngine")
    sys.path.remove(str(HERE))


@pytest.fixture(scope="module")
def session(engine: IsolatedEngine, manifest: Any) -> Iterator[IsolatedSession]:
    """One for all tests: whatever they did to its child, it goes on."""
    opened = engine.open(b"model", manifest, EngineOptions())
    assert isinstance(opened, IsolatedSession)
    yield opened
    opened.close()


def pixels(deed: str, count: int = 1) -> Any:
    found = np.random.default_rng(1).integers(0, 256, (count, 8, 8, 3), np.uint8)
    found[0, 0, 0, 0] = DEEDS.index(deed)
    return found


def process_of(session: IsolatedSession) -> Any:
    assert session._child is not None
    return session._child._process


def is_gone(pid: int) -> bool:
    """Ended and taken by its parent, or by the system: nothing is left, no zombie either."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return True
    return text.rpartition(")")[2].split()[0] == "Z"


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


def test_it_answers_as_the_engine_itself(session: IsolatedSession) -> None:
    for count in (1, 3):
        found = session.run(pixels("ANSWER", count))
        assert found.dtype == np.float32
        assert np.array_equal(found, brightness_scores(pixels("ANSWER", count), 3))
    assert session.run(pixels("ANSWER")[:0]).shape == (0, 3)
    turned = pixels("ANSWER")[:, ::-1]  # not contiguous
    turned[0, 0, 0, 0] = 0
    assert np.array_equal(session.run(turned), brightness_scores(turned, 3))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["litert", "onnxruntime"])
def test_real_engines_answer_the_same(name: str, make_bundle: Callable[..., Path]) -> None:
    pytest.importorskip({"litert": "ai_edge_litert"}.get(name, name))
    bundle = Bundle.open(make_bundle(ENGINES[name].model_format))
    batch = np.random.default_rng(2).integers(0, 256, (4, 8, 8, 3), np.uint8)
    host = ENGINES[name].open(bundle.data, bundle.manifest, EngineOptions())
    child = isolated(ENGINES[name]).open(bundle.data, bundle.manifest, EngineOptions())
    assert np.array_equal(child.run(batch), host.run(batch))
    child.close()
    child.close()
    with pytest.raises(EngineFailed, match="the session is closed"):
        child.run(batch)


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        ("SEGFAULT", "was ended by SIGSEGV"),
        ("ABORT", "was ended by SIGABRT"),
        ("EXIT", r"ended by itself \(exit status 3\)"),
        ("GARBAGE", "something else than probabilities"),
        ("CLOSE", "ended by itself"),
        ("LONG", "something else than probabilities"),
    ],
)
def test_a_dead_child_is_an_error_and_the_next_run_answers(
    session: IsolatedSession, deed: str, said: str
) -> None:
    session.run(pixels("ANSWER"))
    first = process_of(session)
    with pytest.raises(EngineFailed, match=said) as caught:
        session.run(pixels(deed))
    assert "\n" not in str(caught.value)
    assert first.returncode is not None  # waited for
    assert np.array_equal(session.run(pixels("ANSWER")), brightness_scores(pixels("ANSWER"), 3))
    assert process_of(session).pid != first.pid


@pytest.mark.slow
def test_a_hang_is_killed_at_the_limit(engine: IsolatedEngine, manifest: Any) -> None:
    short = IsolatedEngine(engine.inner, 1.0, engine.address)
    session = short.open(b"model", manifest, EngineOptions())
    with pytest.raises(EngineFailed, match="did not answer within 1 s and was killed"):
        session.run(pixels("HANG"))
    session.close()
    with pytest.raises(EngineFailed, match="did not answer within 1 s and was killed"):
        short.open(bytes([DEEDS.index("HANG")]), manifest, EngineOptions())


@pytest.mark.slow
@pytest.mark.parametrize("deed", ["SEGFAULT", "EXIT", "GARBAGE"])
def test_a_model_that_kills_while_it_loads(
    engine: IsolatedEngine, manifest: Any, deed: str
) -> None:
    with pytest.raises(EngineFailed, match="the process that runs the model"):
        engine.open(bytes([DEEDS.index(deed)]), manifest, EngineOptions())


def test_what_libraries_print_is_no_answer(
    session: IsolatedSession, capfd: pytest.CaptureFixture[str]
) -> None:
    assert session.run(pixels("CHATTER")).shape == (1, 3)
    assert capfd.readouterr() == ("", "")


def test_other_shapes_and_values_come_through_for_the_classifier_to_refuse(
    session: IsolatedSession,
) -> None:
    assert session.run(pixels("SHORT")).shape == (1, 2)
    assert np.isnan(session.run(pixels("NAN"))).all()


@linux
def test_memory_is_bounded(session: IsolatedSession) -> None:
    with pytest.raises(EngineFailed, match=r"Unable to allocate|memory"):
        session.run(pixels("LEAK"))
    assert session.run(pixels("ANSWER")).shape == (1, 3)


def test_a_killed_child_between_runs_is_replaced_without_an_error(
    session: IsolatedSession,
) -> None:
    session.run(pixels("ANSWER"))
    first = process_of(session)
    os.kill(first.pid, signal.SIGKILL)
    wait_until(lambda: first.poll() is not None)
    assert session.run(pixels("ANSWER")).shape == (1, 3)


@pytest.mark.slow
@linux
def test_no_descriptors_and_no_processes_are_left(engine: IsolatedEngine, manifest: Any) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    gc.collect()
    before = descriptors()
    pids = []
    for deed in ("ANSWER", "SEGFAULT", "EXIT", "ANSWER"):
        session = engine.open(b"model", manifest, EngineOptions())
        pids.append(process_of(session).pid)  # type: ignore[arg-type]
        if deed == "ANSWER":
            session.run(pixels(deed))
        else:
            with pytest.raises(EngineFailed):
                session.run(pixels(deed))
        if len(pids) < 4:
            session.close()
    del session  # the last one is never closed
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    wait_until(lambda: descriptors() <= before)


def test_threads_take_turns(session: IsolatedSession) -> None:
    found: dict[int, list[Any]] = {}

    def work(number: int) -> None:
        found[number] = [session.run(pixels("ANSWER", number)) for _ in range(10)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(1, 5):
        expected = brightness_scores(pixels("ANSWER", number), 3)
        assert all(np.array_equal(one, expected) for one in found[number])


HOST = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
import numpy as np
from smidgen.runtime import Bundle
from smidgen.runtime.engine import EngineOptions
from smidgen.runtime.fake import FakeEngine
from smidgen.runtime.isolation import IsolatedEngine
engine = IsolatedEngine(FakeEngine(), {limit}, "hostile_engine:HostileEngine")
session = engine.open(b"model", Bundle.open({bundle!r}).manifest, EngineOptions())
print(session._child._process.pid, flush=True)
pixels = np.zeros((1, 8, 8, 3), np.uint8)
{last}
"""


@pytest.mark.slow
@linux
@pytest.mark.parametrize(
    "last",
    [
        "sys.stdin.read()",  # killed while the child waits
        "pixels[0, 0, 0, 0] = 3; session.run(pixels)",  # killed while it hangs
        "import os; os._exit(0)",
        "",  # ends well, and never closes
    ],
)
def test_the_child_ends_with_its_host(make_bundle: Callable[..., Path], last: str) -> None:
    code = HOST.format(here=str(HERE), bundle=str(make_bundle("onnx")), limit=3.0, last=last)
    host = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert host.stdout is not None
    child = int(host.stdout.readline())
    if "_exit" not in last and last:
        host.kill()
    host.wait()
    wait_until(lambda: is_gone(child))
    host.communicate()


@pytest.mark.slow
@linux
def test_a_forked_host_starts_its_own_child(session: IsolatedSession) -> None:
    if sys.version_info >= (3, 12):
        pytest.importorskip("warnings").simplefilter("ignore", DeprecationWarning)
    session.run(pixels("ANSWER"))
    first = process_of(session).pid
    pid = os.fork()
    if pid == 0:
        try:
            answered = session.run(pixels("ANSWER")).shape == (1, 3)
            os._exit(0 if answered and process_of(session).pid != first else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0
    assert session.run(pixels("ANSWER")).shape == (1, 3)
    assert process_of(session).pid == first


def test_objects_that_a_child_cannot_make_are_refused() -> None:
    with pytest.raises(EngineFailed, match="'fake' cannot be isolated: a child process runs"):
        isolated(FakeEngine())
    with pytest.raises(EngineFailed, match="cannot be isolated"):
        isolated(FakeEngine(name="litert"))
    once = isolated(ENGINES["litert"])
    assert isolated(once) is once
    assert (once.name, once.model_format) == ("litert", "tflite")
    assert once.version() == ENGINES["litert"].version()
    assert once.available() == ENGINES["litert"].available()


def test_an_engine_that_does_not_import_in_the_child(
    engine: IsolatedEngine, manifest: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "from smidgen.runtime.fake import FakeEngine\n\n"
    source += "def make(): return FakeEngine(import_error='no such wheel')\n"
    (tmp_path / "absent_engine.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    absent = IsolatedEngine(engine.inner, 20.0, "absent_engine:make")
    with pytest.raises(EngineMissing, match=r"fake does not import \(no such wheel\)"):
        absent.open(b"model", manifest, EngineOptions())


def test_the_current_folder_is_not_where_the_child_imports_from(
    tmp_path: Path, engine: IsolatedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit(9)\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", ".")])
    child = Child(engine)
    assert child.is_alive()
    child.end()
    assert not child.is_alive()
