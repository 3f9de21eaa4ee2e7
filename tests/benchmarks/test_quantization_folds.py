"""Cross-validation of the gate: who is dealt where, what is added up, and a real one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")
pytest.importorskip("onnx")

from PIL import Image

from smidgen.bench.quantization import folds
from smidgen.bench.quantization.fold_lists import deal, write_lists
from smidgen.bench.quantization.pooled import pool, pooled_table
from smidgen.export.errors import GateError
from smidgen.export.gate.verdicts import JudgedImages, Limits, judge_scores
from smidgen.export.result import ExportedBundle, ExportResult
from smidgen.runtime.manifest import Verdict
from smidgen.train.data import Dataset, Example, Found, Inventory
from smidgen.train.data.scan import scan
from smidgen.train.errors import DataError
from smidgen.train.progress import SilentProgress
from smidgen.train.recipe import DataRecipe

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 40, 220)}


def inventory_of(count: int) -> Inventory:
    """``count`` images of each of two classes, with contents that are their numbers."""
    found = [
        Found(Example(f"/images/{label}/{number}.png", label, f"{2 * number + label:064x}"), None)
        for label in range(2)
        for number in range(count)
    ]
    return Inventory("/images", ("cat", "dog"), tuple(found), (), 0)


def verdict_of(seed: int, images: int, wrong: float) -> tuple[Verdict, np.ndarray, np.ndarray]:
    """A verdict on random answers, and which images each side had right."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 4, images)
    sides = [np.where(random.random(images) < wrong, (truth + 1) % 4, truth) for _ in range(2)]
    scores = [np.eye(4, dtype=np.float32)[side] for side in sides]
    verdict, _ = judge_scores(*scores, images=JudgedImages(truth), limits=Limits(1.0))
    return verdict, sides[0] == truth, sides[1] == truth


def exported(verdict: Verdict, folder: Path = Path(), scheme: str = "int8") -> ExportedBundle:
    """What export reports of a file with that verdict."""
    return ExportedBundle(
        f"x-{scheme}.tflite", "tflite", scheme, True, verdict, 1000, 900, "0" * 64, "1" * 64,
        folder=str(folder),
    )  # fmt: skip


def test_each_image_is_tested_once_and_never_trained_on_there() -> None:
    dealt = deal(inventory_of(200), 5)
    assert len({image.path for image in dealt}) == len(dealt) == 400
    for fold in range(5):
        tested = [image for image in dealt if image.split(fold) == "test"]
        assert 50 < len(tested) < 110
        assert all(
            image.split(other) != "test" for image in tested for other in {0, 1, 2, 3, 4} - {fold}
        )
    chosen = sum(image.chooses for image in dealt)
    assert 20 < chosen < 60


def test_the_fold_depends_on_the_content_alone() -> None:
    few, many = deal(inventory_of(50), 5), deal(inventory_of(80), 5)
    assert set(few) <= set(many)


def test_look_alikes_are_dealt_together() -> None:
    inventory = inventory_of(200)
    alike = [[f"{number:064x}" for number in range(start, start + 20)] for start in (0, 20)]
    dealt = {image.path: image for image in deal(inventory, 5, alike)}
    paths = {item.example.sha256: item.example.path for item in inventory.found}
    for cluster in alike:
        placed = {(dealt[paths[one]].fold, dealt[paths[one]].chooses) for one in cluster}
        assert len(placed) == 1


def test_look_alikes_without_end_are_dealt_one_by_one() -> None:
    inventory = inventory_of(200)
    alike = [[f"{number:064x}" for number in range(21)]]
    assert deal(inventory, 5, alike) == deal(inventory, 5)


def test_too_few_images_are_one_line() -> None:
    with pytest.raises(DataError, match=r"4 images in 4 folds .* take fewer folds"):
        deal(inventory_of(2), 4)


def test_lists_are_read_by_train_as_they_were_dealt(tmp_path: Path) -> None:
    paint(tmp_path / "images", 12)
    Path(tmp_path, "images", "red", "broken.png").write_bytes(b"no image")
    places = write_lists(tmp_path / "images", tmp_path / "lists", 3, SilentProgress())
    seen: list[str] = []
    for place in places:
        recipe = DataRecipe(folder=str(place), labels="index")
        dataset: Dataset = scan(place, recipe)
        assert not dataset.skipped
        assert dataset.train
        assert dataset.validation
        seen += [example.sha256 for example in dataset.test]
    assert len(seen) == len(set(seen)) == 36


def test_counts_of_folds_add_up_to_those_of_all_images() -> None:
    found = [verdict_of(seed, 300 + seed, 0.05) for seed in range(4)]
    (row,) = pool([[exported(verdict)] for verdict, _, _ in found], 1.0)
    before, after = (np.concatenate(sides) for sides in zip(*(one[1:] for one in found)))
    truth = np.zeros(len(before), np.int64)
    scores = [np.eye(2, dtype=np.float32)[np.where(side, 0, 1)] for side in (before, after)]
    whole, _ = judge_scores(*scores, images=JudgedImages(truth), limits=Limits(1.0))
    assert row.drop == pytest.approx(
        (whole.drop_points, whole.drop_low_points, whole.drop_high_points)
    )
    assert row.pairs.images == 1206
    assert (row.pairs.lost, row.pairs.gained) == (whole.lost, whole.gained)
    assert row.test.exact == pytest.approx(whole.mcnemar_p)
    assert row.changed == sum(verdict.changed_answers for verdict, _, _ in found)
    assert row.verdict == whole.verdict
    text = pooled_table([row]).as_text()
    assert "int8 .tflite" in text
    assert f"{whole.drop_points:.2f} [{whole.drop_low_points:.2f}, " in text


def test_folds_together_decide_what_one_of_them_cannot() -> None:
    verdict, _, _ = verdict_of(0, 372, 0.0)
    one, ten = (pool([[exported(verdict)]] * count, 0.3)[0] for count in (1, 10))
    assert (one.verdict, ten.verdict) == ("undecided", "pass")
    assert one.needed is not None
    assert 372 < one.needed <= 3720


def test_a_fold_without_labels_cannot_be_added() -> None:
    verdict, _, _ = verdict_of(0, 100, 0.1)
    unlabelled = dataclasses.replace(verdict, truth="reference")
    with pytest.raises(GateError, match="not judged by labels"):
        pool([[exported(verdict)], [exported(unlabelled)]], 1.0)


class FakeSmidgen:
    """Stands for the commands: keeps what it was asked for, and writes a report for each export."""

    def __init__(
        self, fails: str = "", status: int = 1, lacks: str = "", verdict: Verdict | None = None
    ) -> None:
        self.asked: list[list[str]] = []
        self._fails, self._status, self._lacks = fails, status, lacks
        self._verdict = verdict or verdict_of(0, 50, 0.0)[0]

    def __call__(self, argv: Sequence[str]) -> int:
        self.asked.append(list(argv))
        fold = Path(argv[1]).name
        if f"{argv[0]} {fold}" == self._fails:
            return self._status
        if argv[0] == "train":
            return 0
        out = Path(argv[argv.index("--out") + 1])
        out.mkdir(parents=True, exist_ok=True)
        schemes = ["float32", "int8"] if fold != self._lacks else ["float32"]
        made = [exported(self._verdict, out, scheme) for scheme in schemes]
        ExportResult(out, tuple(made)).write()
        return 1  # as where the gate refused a file


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three colours, 12 pictures of each."""
    paint(tmp_path / "images", 12)
    return tmp_path / "images"


def paint(folder: Path, count: int) -> None:
    """``count`` pictures of each of the colours, in a folder for each: large soft spots."""
    random = np.random.default_rng(5)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            spots = random.integers(-60, 60, (4, 4, 1))
            pixels = np.array(colour) + spots.repeat(8, axis=0).repeat(8, axis=1)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
                folder / name / f"{number}.png"
            )


def run_folds(
    images: Path, command: FakeSmidgen, monkeypatch: pytest.MonkeyPatch, *flags: str
) -> int:
    monkeypatch.setattr(folds, "smidgen", command)
    work = images.parent / "work"
    return folds.main([str(images), "--work", str(work), "--folds", "3", *flags])


def test_every_fold_is_trained_and_exported_as_asked(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command, out = FakeSmidgen(), images.parent
    status = run_folds(
        images, command, monkeypatch, "--train", "--image-size 64", "--export", "--schemes int8",
        "--max-drop", "3", "--markdown", str(out / "t.md"), "--json", str(out / "t.json"),
    )  # fmt: skip
    assert status == 0
    assert [argv[0] for argv in command.asked] == ["train", "export"] * 3
    assert command.asked[0][-2:] == ["--image-size", "64"]
    assert command.asked[1][-4:] == ["--max-drop", "3.0", "--schemes", "int8"]
    printed = capsys.readouterr().out
    assert "int8 .tflite" in printed
    assert "pass" in printed
    assert "| int8 .tflite | 1,000 | 150 |" in (out / "t.md").read_text()
    assert len(json.loads((out / "t.json").read_text())["folds"]) == 3


@pytest.mark.parametrize("step", ["train fold-1", "export fold-1"])
def test_a_command_that_fails_ends_it_in_one_line(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], step: str
) -> None:
    assert run_folds(images, FakeSmidgen(), monkeypatch) == 0  # leaves reports of another time
    assert run_folds(images, FakeSmidgen(fails=step), monkeypatch) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"fold-1: smidgen {step.split(maxsplit=1)[0]} ended with status 1")


def test_a_file_that_one_fold_lacks_is_a_failure(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_folds(images, FakeSmidgen(lacks="fold-2"), monkeypatch) == 1
    assert "FAILED int8 .tflite: made in 2 of 3 folds." in capsys.readouterr().out


def test_a_proven_loss_is_a_failure(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = np.zeros(50, np.int64)
    right = np.eye(2, dtype=np.float32)[truth]
    images_judged, limits = JudgedImages(truth), Limits(1.0)
    lossy, _ = judge_scores(right, right[:, ::-1], images=images_judged, limits=limits)
    assert run_folds(images, FakeSmidgen(verdict=lossy), monkeypatch) == 1
    assert "fail" in capsys.readouterr().out


def test_ctrl_c_in_a_child_ends_it(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_folds(images, FakeSmidgen(fails="train fold-1", status=130), monkeypatch) == 130
    assert "the same command goes on" in capsys.readouterr().err


@pytest.mark.slow
def test_two_real_folds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paint(tmp_path / "images", 20)
    argv = [
        str(tmp_path / "images"), "--work", str(tmp_path / "work"), "--folds", "2",
        "--json", str(tmp_path / "out.json"),
        "--train", "--weights none --image-size 32 --head-epochs 0 --full-epochs 1",
        "--export", "--formats onnx --schemes float32",
    ]  # fmt: skip
    status = folds.main(argv)
    printed = capsys.readouterr()
    assert status == 0, printed.err
    raw = json.loads((tmp_path / "out.json").read_text())
    assert [row["name"] for row in raw["rows"]] == ["float32 .onnx"], printed.out
    assert raw["rows"][0]["pairs"]["images"] == 60
    assert raw["rows"][0]["changed"] == 0
