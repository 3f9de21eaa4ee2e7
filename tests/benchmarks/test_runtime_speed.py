"""The runtime's speed beside others: the turns, the goals, and every worker in miniature."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("PIL")

from PIL import Image

from smidgen.bench.errors import ContenderFailed
from smidgen.bench.runtime_speed import goals
from smidgen.bench.runtime_speed.__main__ import HERE, contenders, main
from smidgen.bench.runtime_speed.contest import Contest, FreshProcess, Sample, compare
from smidgen.bench.runtime_speed.goals import LARGE, MEDIAPIPE, OURS, SMALL, mediapipe, pair, rows
from smidgen.bench.runtime_speed.installed import installed_bytes
from smidgen.export.formats.pack import pack
from smidgen.runtime.manifest import Manifest, Preprocessing, Provenance, TensorSpec

MS = 10**6
MEDIAPIPE_PYTHON = os.environ.get("SMIDGEN_TEST_MEDIAPIPE_PYTHON", "")
TINY = Path(__file__).parents[1] / "runtime" / "tiny-int8.tflite"


def sample(first_ms: float = 1, **runs_ms: list[float]) -> Sample:
    """A process that took as long as that; ``by_hand=[8]`` in ms."""
    named = {"classify": OURS, "by_hand": goals.BY_HAND, "other": MEDIAPIPE}
    runs = {named[key]: [round(one * MS) for one in times] for key, times in runs_ms.items()}
    return Sample(0, round(150 * MS), round(first_ms * MS), runs, 50 * MS)


class FakeContender:
    """A contender that dies in its ``dies_in``-th turn. See ``Contender``."""

    def __init__(self, name: str, dies_in: int = 10**9) -> None:
        self.name, self.turns, self._dies_in = name, 0, dies_in

    def run(self) -> Sample:
        """See Contender."""
        self.turns += 1
        if self.turns >= self._dies_in:
            raise ContenderFailed(f"{self.name}: out of memory")
        return sample(self.turns)


def test_contenders_take_turns_and_one_that_fails_is_left_out() -> None:
    fakes = [FakeContender("ours"), FakeContender("dies", 3), FakeContender("other")]
    said: list[str] = []
    contest = compare(fakes, 3, said.append)
    assert [fake.turns for fake in fakes] == [4, 3, 4]
    assert list(contest.samples) == ["other", "ours"] or list(contest.samples) == ["ours", "other"]
    # the first round is not counted
    assert [one.first_ns for one in contest.samples["ours"]] == [2 * MS, 3 * MS, 4 * MS]
    assert (
        contest.failures == ["dies: out of memory"] and "left out: " + contest.failures[0] in said
    )


def contest_of(ours_ms: float, spread: float = 0.0) -> Contest:
    """Three rounds in which the others take 10 (100 at 12 megapixels, 1000 to start)."""
    factors = (1 - spread, 1.0, 1 + spread)
    large = [sample(classify=[ours_ms * 2 * f], by_hand=[100.0]) for f in factors]
    return Contest(
        {
            goals.STARTED: [sample(105 * f) for f in factors],
            goals.STARTED_BY_HAND: [sample(100)] * 3,
            pair(SMALL): [sample(classify=[ours_ms * f], by_hand=[10.0]) for f in factors],
            pair(LARGE): large,
            mediapipe(SMALL): [sample(1000, other=[12.0])] * 3,
            mediapipe(LARGE): [sample(other=[110.0])] * 3,
        }
    )


def test_the_goals_stand_beside_the_ratios() -> None:
    found = rows(contest_of(10.0), {"numpy": 100 * MS, "pillow": 30 * MS})
    values = [row.value for row in found]
    assert values == pytest.approx([1.0, 1.05, 1.2, 5.5, 1000 / 105, 5.0, 0.15, 50.0, 130.0])
    assert [row.verdict for row in found] == ["met"] * 9
    slow = rows(contest_of(11.0), {"numpy": 161 * MS})
    verdicts = [row.verdict for row in slow]
    assert [verdicts[place] for place in (0, 2, 3, 8)] == ["missed", "missed", "met", "missed"]
    wide = rows(contest_of(10.0, spread=0.1), {})
    assert wide[0].verdict == "open" and wide[8].verdict == "not measured"
    text = goals.table_of(found).as_markdown().splitlines()
    assert text[2] == (
        "| classify(), 500x375, over a loop by hand | 10.00 ms | 10.00 ms | 1x [1, 1] | "
        "at most 1.05x | met |"
    )


def test_who_failed_is_not_measured() -> None:
    contest = contest_of(10.0)
    for gone in (mediapipe(SMALL), mediapipe(LARGE), goals.STARTED):
        del contest.samples[gone]
    found = rows(contest, {})
    assert [row.verdict == "not measured" for row in found] == [
        *(False, True, True, True, True, False),
        *(True, True, True),
    ]
    assert json.loads(json.dumps(goals.as_mapping(contest, found, {})))["rows"][2]["value"] is None


def script(tmp_path: Path, text: str) -> FreshProcess:
    path = tmp_path / "worker.py"
    path.write_text(text)
    return FreshProcess("one", Path(sys.executable), path, ("7",), limit_s=60)


def test_a_process_says_two_lines(tmp_path: Path) -> None:
    text = """
import json, sys
print(json.dumps({"answer": int(sys.argv[1]), "first_ns": 5}), flush=True)
print(json.dumps({"runs_ns": {"a": [1, 2]}, "peak_rss_bytes": 9}))
"""
    taken = script(tmp_path, text).run()
    assert (taken.answer, taken.first_ns, taken.runs_ns) == (7, 5, {"a": [1, 2]})
    assert taken.started_ns > 5 and taken.peak_rss_bytes == 9


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import sys; sys.exit('no such engine')", "one: no such engine"),
        ("import os; os.kill(os.getpid(), 9)", "one: ended with status -9"),
        ("print('{}')", "one: its answer is no sample"),
        ("print('[]'); print('{}')", "one: its answer is no sample"),
    ],
)
def test_a_process_that_fails_says_why(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(ContenderFailed, match=f"^{reason}"):
        script(tmp_path, text).run()


def test_a_python_that_is_not_there(tmp_path: Path) -> None:
    absent = FreshProcess("one", tmp_path / "python", tmp_path / "worker.py", ())
    with pytest.raises(ContenderFailed, match=r"one: .*python: No such file"):
        absent.run()


def test_the_size_of_packages_counts_what_they_need_once() -> None:
    sizes = installed_bytes(Path(sys.executable), ("onnx", "numpy"))
    assert {"onnx", "numpy", "protobuf"} <= set(sizes)
    assert sizes["numpy"] > 10 * MS
    with pytest.raises(ContenderFailed, match="has no smidgen-nothing"):
        installed_bytes(Path(sys.executable), ("numpy", "smidgen-nothing"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The tiny int8 model of the runtime's tests."""
    pytest.importorskip("ai_edge_litert")
    manifest = Manifest(
        name="tiny",
        model_format="tflite",
        scheme="int8",
        labels=("red", "green", "blue"),
        preprocessing=Preprocessing(width=8, height=8),
        input=TensorSpec("image", (-1, 8, 8, 3), "uint8", "NHWC", 0.0, 255.0),
        output=TensorSpec("probabilities", (-1, 3), "uint8", "NC", 0.0, 1.0, 1 / 256),
        provenance=Provenance("2026-11-22T00:00:00Z", "tiny", "test", "", "aa", "bb"),
        payload_sha256="",
    )
    path = tmp_path / "tiny.tflite"
    path.write_bytes(pack(TINY.read_bytes(), manifest)[0])
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A blue photo of 40 x 30 px."""
    path = tmp_path / "blue.jpg"
    Image.new("RGB", (40, 30), (20, 40, 250)).save(path)
    return path


@pytest.mark.parametrize(
    ("worker", "named"),
    [
        ("runtime_worker.py", {OURS}),
        ("by_hand_worker.py", {goals.BY_HAND}),
        ("pair_worker.py", {OURS, goals.BY_HAND}),
    ],
)
def test_every_worker_gives_the_same_answer(
    bundle: Path, photo: Path, worker: str, named: set[str]
) -> None:
    given = (str(bundle), str(photo), "3", "0.875", "bicubic")
    taken = FreshProcess(worker, Path(sys.executable), HERE / worker, given).run()
    assert taken.answer == 2  # blue
    assert set(taken.runs_ns) == named
    assert all(len(times) == 3 and min(times) > 0 for times in taken.runs_ns.values())
    assert taken.peak_rss_bytes > 10 * MS


@pytest.mark.skipif(
    not MEDIAPIPE_PYTHON, reason="SMIDGEN_TEST_MEDIAPIPE_PYTHON names no Python with mediapipe"
)
@pytest.mark.slow
def test_mediapipes_worker(bundle: Path, photo: Path) -> None:
    given = (str(bundle), str(photo), "3", "0.875", "bicubic")
    python, path = Path(MEDIAPIPE_PYTHON), HERE / "mediapipe_worker.py"
    taken = FreshProcess("mediapipe", python, path, given).run()
    assert (taken.answer, len(taken.runs_ns[MEDIAPIPE])) == (2, 3)


@pytest.mark.slow
def test_one_command_prints_and_writes_the_table(
    bundle: Path,
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = [tmp_path / "speed.md", tmp_path / "speed.json"]
    given = [str(bundle), str(photo), "--rounds", "1", "--runs", "1"]
    given += ["--markdown", str(files[0]), "--json", str(files[1])]
    absent = ["--mediapipe-python", str(tmp_path / "python")]
    assert main([*given, *absent]) == 1  # a contender failed
    printed = capsys.readouterr()
    assert "left out: 500x375: MediaPipe" in printed.err
    assert "over a loop by hand" in printed.out and "| verdict |" in files[0].read_text()
    raw = json.loads(files[1].read_text())
    assert len(raw["measured"]["rows"]) == 9
    assert main([*given[:1], str(tmp_path / "none.jpg")]) == 1
    assert "none.jpg: cannot be opened" in capsys.readouterr().err


def test_who_takes_part(bundle: Path, tmp_path: Path) -> None:
    class Arguments:
        bundle: Path
        python = Path("ours")
        mediapipe_python: Path | None = Path("theirs")
        runs = 40

    given = Arguments()
    given.bundle = bundle
    make: Callable[..., list[FreshProcess]] = contenders  # type: ignore[assignment]
    found = make(given, tmp_path / "s.jpg", tmp_path / "l.jpg")
    assert len({one.name for one in found}) == 6
    assert {one.name for one in found if one.python == Path("theirs")} == {
        mediapipe(SMALL),
        mediapipe(LARGE),
    }
    assert {one.arguments[2] for one in found if "l.jpg" in one.arguments[1]} == {"8"}
    given.mediapipe_python = None
    assert len(make(given, tmp_path / "s.jpg", tmp_path / "l.jpg")) == 4


def test_the_workers_need_nothing_of_the_toolchain() -> None:
    """They run in environments that have only what a device has."""
    for name in ("by_hand_worker.py", "mediapipe_worker.py"):
        assert "smidgen" not in (HERE / name).read_text().partition('"""\n')[2]
