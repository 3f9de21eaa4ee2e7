"""A sweep on a scripted Device: order, rows, failures, and what is kept of them."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from smidgen.bench.errors import (
    DeviceError,
    DeviceRunFailed,
    JournalDamaged,
    NothingToMeasure,
)
from smidgen.bench.fake import FAKE_FACTS, FakeDevice
from smidgen.bench.local import LocalDevice
from smidgen.bench.measure import Sweep, arguments, measure, turn
from smidgen.bench.measurement import Measurement, append, read
from smidgen.bench.recipe import BenchRecipe
from smidgen.runtime.errors import OutputError
from smidgen.runtime.schema import as_mapping
from smidgen.runtime.timing import TimingSample

SAMPLE = TimingSample(
    engine="fake",
    engine_version="1.2",
    threads=2,
    warmup_runs=1,
    import_ns=10,
    load_ns=2_000_000,
    first_inference_ns=3_000_000,
    decode_ns=(1, 2),
    preprocess_ns=(3, 4),
    inference_ns=(5, 6),
    whole_ns=(9, 12),
    peak_rss_bytes=1000,
    file_sha256="aa",
    image="golden",
)
ANSWER = json.dumps(as_mapping(SAMPLE))


def sweep_of(
    bundles: Sequence[Path],
    answer: Callable[[Sequence[str]], str | DeviceError],
    journal: Path,
    **settings: Any,
) -> tuple[Sweep, FakeDevice, list[str]]:
    device, lines = FakeDevice(answer), list[str]()
    recipe = BenchRecipe(**{"rounds": 3, **settings})
    sweep = measure(bundles, recipe, journal, device=device, progress=lines.append)
    return sweep, device, lines


@pytest.fixture
def bundles(make_bundle: Callable[..., Path]) -> list[Path]:
    return [make_bundle(f"m{index}.onnx", name=f"m{index}") for index in range(4)]


def test_every_bundle_comes_first_once_in_as_many_rounds_as_there_are_bundles() -> None:
    for count in range(1, 7):
        orders = [turn(count, number, seed=5) for number in range(count)]
        assert all(sorted(order) == list(range(count)) for order in orders)
        assert sorted(order[0] for order in orders) == list(range(count))
    assert turn(6, 0, seed=1) != turn(6, 0, seed=2)
    assert turn(6, 3, seed=1) == turn(6, 3, seed=1)


def test_each_round_runs_every_bundle_once_in_a_fresh_process(
    bundles: list[Path], tmp_path: Path
) -> None:
    sweep, device, _ = sweep_of(bundles, lambda _: ANSWER, tmp_path / "j.jsonl", threads=2)
    assert device.pushed == bundles
    models = [call[1] for call in device.calls]
    for number in range(3):
        assert sorted(models[number * 4 : number * 4 + 4]) == [f"/fake/m{i}.onnx" for i in range(4)]
    assert len({tuple(models[n * 4 : n * 4 + 4]) for n in range(3)}) == 3
    assert [row.round for row in sweep.rows] == [0] * 4 + [1] * 4 + [2] * 4
    assert [row.position for row in sweep.rows] == [0, 1, 2, 3] * 3
    assert device.calls[0][2:] == (
        "--json", "--backend=auto", "--threads=2", "--warmup=5", "--runs=20",
    )  # fmt: skip
    assert {row.device for row in sweep.rows} == {FAKE_FACTS}
    assert len({row.sweep for row in sweep.rows}) == 1
    assert len(sweep.verdicts) == 4


def test_the_runtime_accepts_these_arguments(make_bundle: Callable[..., Path]) -> None:
    """The one real process: the fake's answers have the shape of the real one's."""
    pytest.importorskip("onnxruntime")
    path = make_bundle()
    stdout = LocalDevice().run(arguments(str(path), BenchRecipe(runs=3, warmup=1)))
    answer = json.loads(stdout)
    assert set(answer) == {field.name for field in dataclasses.fields(TimingSample)}
    assert len(answer["inference_ns"]) == 3
    assert answer["whole_ns"][0] >= answer["inference_ns"][0] > 0
    assert answer["peak_rss_bytes"] > 10_000_000


def test_a_failing_bundle_is_reported_once_and_the_others_go_on(
    bundles: list[Path], tmp_path: Path
) -> None:
    def answer(argv: Sequence[str]) -> str | DeviceError:
        return DeviceRunFailed("killed by SIGSEGV") if "m2" in argv[1] else ANSWER

    torn, alien = tmp_path / "torn.onnx", tmp_path / "readme.onnx"
    torn.write_bytes(bundles[0].read_bytes()[:200])
    alien.write_text("not a model")
    sweep, device, lines = sweep_of([*bundles, torn, alien], answer, tmp_path / "j.jsonl")
    assert [Path(f.bundle_file).name for f in sweep.failures] == [
        "torn.onnx", "readme.onnx", "m2.onnx",
    ]  # fmt: skip
    assert sweep.failures[2].reason == "killed by SIGSEGV"
    assert [call[1] for call in device.calls].count("/fake/m2.onnx") == 1
    assert Counter(row.name for row in sweep.rows) == {"m0": 3, "m1": 3, "m3": 3}
    assert sum(line.startswith("FAILED") for line in lines) == 3


@pytest.mark.parametrize("stdout", ["", "hello", "{}", '{"engine": "x"}', "[1]"])
def test_an_answer_that_is_no_sample_is_a_failure(
    bundles: list[Path], tmp_path: Path, stdout: str
) -> None:
    sweep, _, _ = sweep_of(bundles[:1], lambda _: stdout, tmp_path / "j.jsonl")
    assert sweep.rows == ()
    assert "no timing sample" in sweep.failures[0].reason
    assert not (tmp_path / "j.jsonl").exists()


def test_no_bundle_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NothingToMeasure, match="name at least one"):
        sweep_of([], lambda _: ANSWER, tmp_path / "j.jsonl")


def test_rows_are_flat_and_come_back_equal(bundles: list[Path], tmp_path: Path) -> None:
    journal = tmp_path / "deep" / "j.jsonl"
    sweep, _, _ = sweep_of(bundles[:2], lambda _: ANSWER, journal)
    assert read(journal) == sweep.rows
    row = json.loads(journal.read_text().splitlines()[0])
    assert not any(isinstance(value, dict) for value in row.values())
    assert row["sample_inference_ns"] == [5, 6]
    assert row["device_cpu_model"] == "Fake CPU 1 GHz"
    assert row["smidgen_version"]
    assert Measurement.from_row(row) == sweep.rows[0]


def test_what_a_killed_run_left_of_a_line_is_cut_off(bundles: list[Path], tmp_path: Path) -> None:
    journal = tmp_path / "j.jsonl"
    sweep, _, _ = sweep_of(bundles[:1], lambda _: ANSWER, journal)
    whole = journal.read_bytes()
    journal.write_bytes(whole + whole[: len(whole) // 7])
    assert read(journal) == sweep.rows
    append(journal, sweep.rows[0])
    assert read(journal) == (*sweep.rows, sweep.rows[0])
    journal.write_bytes(b'{"torn')
    append(journal, sweep.rows[0])
    assert read(journal) == sweep.rows[:1]


def test_a_damaged_line_in_the_middle_is_an_error(bundles: list[Path], tmp_path: Path) -> None:
    journal = tmp_path / "j.jsonl"
    sweep_of(bundles[:1], lambda _: ANSWER, journal)
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join([lines[0], lines[1].replace('"round"', '"rund"'), ""]))
    with pytest.raises(JournalDamaged, match=r"line 2: .*'rund'.*'round'"):
        read(journal)


def test_a_full_disk_is_one_line(bundles: list[Path], tmp_path: Path) -> None:
    sweep, _, _ = sweep_of(bundles[:1], lambda _: ANSWER, tmp_path / "j.jsonl")
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("needs Linux's /dev/full")
    with pytest.raises(OutputError, match=r"disk full.*free some space"):
        append(full, sweep.rows[0])


def test_what_lies_in_the_users_folder_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    assert "usage: smidgen-runtime" in LocalDevice().run(["--help"])


def test_a_local_process_that_fails_hangs_or_dies_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DeviceRunFailed, match="nowhere"):
        LocalDevice().run(["info", str(tmp_path / "nowhere.onnx")])
    with pytest.raises(DeviceRunFailed, match="no answer within"):
        LocalDevice(limit_s=0.01).run(["--help"])
