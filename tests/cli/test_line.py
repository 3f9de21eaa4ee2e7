"""``smidgen run`` with scripted stages: order, skipping, failures, and what is shown."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from smidgen.cli import layout
from smidgen.cli.line import LineResult, run_line
from smidgen.cli.recipe_file import LineRecipe, line_recipe, load
from smidgen.cli.run_command import show
from smidgen.cli.stages import FakeRunner
from smidgen.runtime.manifest import Verdict
from smidgen.train.data import Dataset, Example
from smidgen.train.errors import RunMismatch
from smidgen.train.run import Run

FAILED = Verdict("fail", 400, 98.5, 96.0, 2.5, 1.75, 3.25, 1.0, 12, 0.02, 0.4)


class Stages:
    """Scripted stages which write what real ones would; ``statuses`` says how each ends."""

    def __init__(self, run: Path, make_bundle: Callable[..., Path]) -> None:
        self.run_folder, self.make_bundle = run, make_bundle
        self.statuses = {"train": 0, "export": 0, "bench": 0}
        self.failing: tuple[str, ...] = ()
        self.missing: tuple[str, ...] = ()
        self.is_bench_silent = False
        self.runner = FakeRunner(self.answer)

    @property
    def names(self) -> list[str]:
        """The stages that ran since the last look."""
        names = [call[0] for call in self.runner.calls]
        self.runner.calls.clear()
        return names

    def answer(self, argv: Sequence[str]) -> int:
        stage, run = argv[0], self.run_folder
        if stage == "train" and self.statuses["train"] == 0:
            recipe = line_recipe(load(Path(argv[1])))
            Run(run).keep_recipe(recipe.train)
            photos = recipe.data.folder
            tested = Example(f"{photos}/cat/1.jpg", 0, "aa")
            Run(run).keep_dataset(Dataset(photos, ("cat",), (), (), (tested,), (), 0))
            (run / layout.MODEL).write_bytes(b"weights")
        if stage == "export":
            for scheme in ("float32", "int8"):
                if scheme in self.missing:
                    continue
                is_bad = scheme in self.failing
                mark = layout.GATE_FAILED if is_bad else ""
                changes = {"verdict": FAILED} if is_bad else {}
                self.make_bundle(f"run/bundles/run-{scheme}{mark}.onnx", scheme=scheme, **changes)
        if stage == "bench" and not self.is_bench_silent:
            bench = Path(argv[argv.index("--out") + 1])
            bench.mkdir(exist_ok=True)
            (bench / layout.REPORT_TEXT).write_text("the table\n")
        return self.statuses[stage]


@pytest.fixture
def stages(tmp_path: Path, make_bundle: Callable[..., Path]) -> Stages:
    return Stages(tmp_path / "run", make_bundle)


@pytest.fixture
def recipe(tmp_path: Path) -> LineRecipe:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "1.jpg").write_bytes(b"jpeg")
    folder = str(tmp_path / "photos")
    return line_recipe({"data": {"folder": folder}, "export": {"formats": ["onnx"]}})


def call(stages: Stages, recipe: LineRecipe) -> tuple[LineResult, list[str]]:
    lines: list[str] = []
    ticks = iter(range(100))
    result = run_line(
        recipe, stages.run_folder, runner=stages.runner, progress=lines.append,
        clock=lambda: 10.0 * next(ticks),
    )  # fmt: skip
    return result, lines


def test_the_stages_are_commands_that_read_the_resolved_recipe(
    stages: Stages, recipe: LineRecipe
) -> None:
    result, _ = call(stages, recipe)
    run = stages.run_folder
    file = str(run / "line.toml")
    assert stages.runner.calls == [
        ("train", file, "--out", str(run)),
        ("export", str(run), "--recipe", file, "--out", str(run / "bundles")),
        ("bench", str(run / "bundles/run-float32.onnx"), str(run / "bundles/run-int8.onnx"),
         "--recipe", file, "--out", str(run / "bench")),
    ]  # fmt: skip
    assert Path(file).read_text() == recipe.to_toml()
    assert [(o.stage, o.status, o.seconds) for o in result.outcomes] == [
        ("train", 0, 10.0), ("export", 0, 10.0), ("bench", 0, 10.0),
    ]  # fmt: skip
    assert (result.status, result.complaints) == (0, ())


def test_the_end_shows_table_files_and_two_commands(
    stages: Stages, recipe: LineRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    result, _ = call(stages, recipe)
    assert show(result, stages.run_folder) == 0
    captured = capsys.readouterr()
    best = stages.run_folder / "bundles" / "run-int8.onnx"
    picture = Path(recipe.data.folder) / "cat" / "1.jpg"
    assert captured.out.startswith("the table\n")
    assert f"{best.stat().st_size:>12,} bytes  {best}\n" in captured.out
    first, second = captured.out.partition("try next\n")[2].splitlines()
    assert first.endswith("smidgen run YOUR_FOLDER")
    assert second.endswith(f"smidgen-runtime classify {best} {picture}")
    for line in (first, second):  # each can be typed as it stands
        program = line.split()[0]
        assert shutil.which(program) or program in ("smidgen", "smidgen-runtime")
    assert captured.err == "smidgen: train 10 s, export 10 s, bench 10 s\n"


def test_what_is_finished_is_not_done_again(stages: Stages, recipe: LineRecipe) -> None:
    call(stages, recipe)
    assert stages.names == ["train", "export", "bench"]
    result, lines = call(stages, recipe)
    assert stages.names == []
    assert lines == [f"{stage}: done before, in 10 s" for stage in ("train", "export", "bench")]
    assert result.status == 0
    assert result.files


def test_a_change_repeats_exactly_what_depends_on_it(stages: Stages, recipe: LineRecipe) -> None:
    def changed(**tables: dict[str, object]) -> LineRecipe:
        folder = {"data": {"folder": recipe.data.folder}}
        return line_recipe({**folder, "export": {"formats": ["onnx"]}, **tables})

    call(stages, recipe)
    assert stages.names == ["train", "export", "bench"]
    call(stages, changed(bench={"rounds": 7}))
    assert stages.names == ["bench"]
    call(stages, changed(export={"formats": ["onnx"], "max_drop": 2.0}, bench={"rounds": 7}))
    assert stages.names == ["export"]  # the same files came out of it
    (stages.run_folder / "bundles" / "run-int8.onnx").unlink()
    call(stages, recipe)
    assert stages.names == ["export", "bench"]
    Path(recipe.data.folder, "cat", "2.jpg").write_bytes(b"jpeg")
    call(stages, recipe)
    assert stages.names == ["train"]


def test_another_training_recipe_is_refused_and_nothing_overwritten(
    stages: Stages, recipe: LineRecipe
) -> None:
    call(stages, recipe)
    other = line_recipe({"data": {"folder": recipe.data.folder, "image_size": 64}})
    with pytest.raises(RunMismatch, match=r"data\.image_size: 224 -> 64"):
        call(stages, other)
    assert (stages.run_folder / "line.toml").read_text() == recipe.to_toml()


def test_a_failing_training_ends_the_line_with_its_status(
    stages: Stages, recipe: LineRecipe
) -> None:
    stages.statuses["train"] = 2
    result, _ = call(stages, recipe)
    assert stages.names == ["train"]
    assert result.status == 2
    assert result.complaints == ("train failed with exit status 2",)
    assert not result.bench_is_done


def test_a_failed_gate_is_measured_all_the_same_and_named(
    stages: Stages, recipe: LineRecipe
) -> None:
    stages.statuses["export"], stages.failing = 1, ("int8",)
    result, _ = call(stages, recipe)
    assert stages.names == ["train", "export", "bench"]
    assert result.status == 1
    assert result.bench_is_done
    bad = stages.run_folder / "bundles" / "run-int8.gate-failed.onnx"
    assert result.complaints == (
        f"gate failed (fail): {bad} loses 2.50 points of top-1 [1.75, 3.25] on 400 images; "
        "allowed: 1",
    )
    assert result.best_bundle == stages.run_folder / "bundles" / "run-float32.onnx"
    call(stages, recipe)
    assert stages.names == ["export"]


def test_an_export_that_makes_part_of_the_files_says_so(stages: Stages, recipe: LineRecipe) -> None:
    stages.statuses["export"], stages.missing = 1, ("int8",)
    result, _ = call(stages, recipe)
    assert stages.names == ["train", "export", "bench"]
    assert result.complaints == ("export made 1 of 2 files",)
    stages.missing = ("int8", "float32")
    (stages.run_folder / "bundles" / "run-float32.onnx").unlink()
    result, _ = call(stages, recipe)
    assert stages.names == ["export"]
    assert (result.status, result.bench_is_done) == (1, False)


def test_a_table_of_other_files_is_not_shown_where_measuring_fails(
    stages: Stages, recipe: LineRecipe
) -> None:
    call(stages, recipe)
    report = stages.run_folder / layout.BENCH / layout.REPORT_TEXT
    assert report.exists()
    stages.statuses["export"], stages.statuses["bench"], stages.failing = 1, 1, ("int8",)
    stages.is_bench_silent = True
    (stages.run_folder / "bundles" / "run-int8.onnx").unlink()
    result, _ = call(stages, recipe)
    assert result.outcomes[-1].stage == "bench"
    assert (result.status, result.bench_is_done, report.exists()) == (1, False, False)


def test_a_killed_stage_is_named_with_the_likely_cause(stages: Stages, recipe: LineRecipe) -> None:
    stages.statuses["train"] = -9
    result, lines = call(stages, recipe)
    assert (
        "train was killed by SIGKILL (usually: out of memory; try a smaller --batch-size)" in lines
    )
    assert result.status == 1


@pytest.mark.parametrize("status", [130, -2, -15])
def test_an_interrupted_stage_interrupts_the_line(
    stages: Stages, recipe: LineRecipe, status: int
) -> None:
    stages.statuses["export"] = status
    with pytest.raises(KeyboardInterrupt) as caught:
        call(stages, recipe)
    assert str(caught.value) == "interrupted during export; run the same command again to go on"
    assert stages.names == ["train", "export"]
    stages.statuses["export"] = 0
    call(stages, recipe)
    assert stages.names == ["export", "bench"]
