"""Every setting of a training recipe, in Runs of ``train()`` on small pictures, by their numbers.

``RUNS`` are recipes; together with ``ELSEWHERE`` they must take every choice of every setting, and
change every setting that is no choice: what is added to the recipe without a test fails here.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from PIL import Image

from smidgen.train import Run, TrainRecipe
from smidgen.train.data import SPLITS
from smidgen.train.loop import train
from smidgen.train.progress import SilentProgress
from smidgen.train.seeing.step_log import read_steps

TESTS = Path(__file__).resolve().parents[1]
SMALL = {"backbone": "mobilenet-v3-small", "weights": "none"}
PLAIN = {"augmentation": "none", "horizontal_flip": False}

RUNS: dict[str, dict[str, dict[str, Any]]] = {
    "file names": {
        "data": {
            "labels": "file-names", "separator": "_", "split": [80, 20], "fit": "stretch",
            "resample": "bilinear", "near_duplicates": "ignore", "limit": 30, "seed": 3,
        },
        "model": {**SMALL, "output": "binary", "dropout": 0.1},
        "schedule": {
            **PLAIN, "head_epochs": 0, "full_epochs": 6, "full_learning_rate": 3e-3, "seed": 4,
            "decay": "none", "warm_up": 0.0, "batch_size": 8, "label_smoothing": 0.0,
            "weight_decay": 0.0, "early_stopping": 6,
        },
    },
    "index": {
        "data": {"labels": "index", "index": "list.csv", "near_duplicates": "ignore"},
        "model": {**SMALL, "head": "mlp"},
        "schedule": {
            "head_epochs": 0, "full_epochs": 10, "full_learning_rate": 2e-3, "batch_size": 8,
            "augmentation": "strong", "balance": "sampling", "ema": 0.8,
        },
    },
    "ready splits": {
        "data": {"near_duplicates": "ignore"},
        "model": {**SMALL, "head": "dropout-mlp"},
        "schedule": {
            "head_epochs": 0, "full_epochs": 12, "full_learning_rate": 3e-3, "batch_size": 6,
            "balance": "weights", "accumulate_steps": 2, "precision": "bfloat16",
        },
    },
    "orientation": {
        "data": {
            "labels": "orientation", "group_by": "folder", "split": [70, 20, 10],
            "near_duplicates": "ignore",
        },
        "model": {**SMALL},
        "schedule": {
            "head_epochs": 1, "full_epochs": 4, "head_learning_rate": 3e-3, "batch_size": 8,
            "full_learning_rate": 2e-3, "augmentation": "pixel", "horizontal_flip": False,
            "random_crop": 0.8,
        },
    },
    "photographs": {
        "data": {"group_by": "file-names", "separator": "-", "crop_fraction": 0.9},
        "model": {},
        "schedule": {
            **PLAIN, "head_epochs": 6, "full_epochs": 0, "freeze_to": "all", "feature_views": 1,
            "batch_norm": "frozen", "head_learning_rate": 0.02, "batch_size": 8,
        },
    },
    "distilled": {
        "data": {"group_by": "file-names", "separator": "-", "crop_fraction": 0.9},
        "model": {},
        "schedule": {
            **PLAIN, "head_epochs": 5, "full_epochs": 0, "freeze_to": "all",
            "head_learning_rate": 0.02, "batch_size": 8,
        },
        "distillation": {"temperature": 3.0, "teacher_share": 1.0},
    },
}  # fmt: skip

EACH_BACKBONE = "train/test_backbones_learn.py::test_a_backbone_learns"
AN_ENSEMBLE = "end_to_end/test_articles.py::test_named_characters_with_an_ensemble"
ON_JAX = "train/fitting/test_processes.py::test_it_trains_on_jax_where_tensorflow_is_not_installed"
ELSEWHERE = {
    "model.backbone": EACH_BACKBONE,  # it goes through the table
    "model.ensemble": AN_ENSEMBLE,
    "schedule.backend = jax": ON_JAX,
}
GIVEN_BY_THE_TEST = {"data.folder", "distillation.teachers"}


def tables() -> Iterator[tuple[str, Any, Any]]:
    """``("data.fit", its type, its default)`` for each setting of the recipe."""
    for table, kind in get_type_hints(TrainRecipe).items():
        types = get_type_hints(kind)
        for field in fields(kind):
            default = None if field.default is MISSING else field.default
            yield f"{table}.{field.name}", types[field.name], default


def untested(runs: Iterable[str], elsewhere: Iterable[str]) -> list[str]:
    """Each choice, and each setting that is no choice, that none of ``runs`` takes, as it is not
    tested ``elsewhere``."""
    mappings = [recipe_of(run, "photos").to_mapping() for run in runs]
    missing = []
    for name, kind, default in tables():
        table, key = name.split(".")
        values = [mapping[table][key] for mapping in mappings]
        if get_origin(kind) is Literal:
            missing += [f"{name} = {choice}" for choice in get_args(kind) if choice not in values]
        elif all(
            value in (default, list(default) if isinstance(default, tuple) else default)
            for value in values
        ):
            missing.append(name)
    known = {*elsewhere, *GIVEN_BY_THE_TEST}
    return [entry for entry in missing if not {entry, entry.partition(" = ")[0]} & known]


def test_every_setting_has_a_test() -> None:
    assert untested(RUNS, ELSEWHERE) == []
    for named in ELSEWHERE.values():
        file, _, function = named.partition("::")
        assert f"def {function}(" in (TESTS / file).read_text(encoding="utf-8"), named


def test_a_setting_without_a_test_would_be_seen() -> None:
    """The planted faults: one recipe less, and one test elsewhere less."""
    expected = [
        "data.labels = orientation", "data.group_by = folder", "schedule.augmentation = pixel",
        "schedule.random_crop", "model.ensemble",
    ]  # fmt: skip
    runs, elsewhere = RUNS.keys() - {"orientation"}, ELSEWHERE.keys() - {"model.ensemble"}
    assert sorted(untested(runs, elsewhere)) == sorted(expected)


def recipe_of(name: str, folder: str | Path, **distillation: Any) -> TrainRecipe:
    """A recipe of ``RUNS`` on ``folder``, at 32 pixels."""
    given = RUNS[name]
    data = {"folder": str(folder), "image_size": 32, **given["data"]}
    distillation = {**given.get("distillation", {}), **distillation}
    return TrainRecipe.from_mapping({**given, "data": data, "distillation": distillation})


COLOURS = {"red": (210, 60, 50), "green": (60, 190, 70), "blue": (50, 70, 210)}


def scene(seed: int, colour: tuple[int, int, int], side: int = 72) -> Image.Image:
    """A picture of soft shapes around one colour; each seed gives other shapes."""
    shapes = np.random.default_rng(seed).integers(-60, 60, (6, 6, 1))
    pixels = np.clip(np.array(colour) + shapes, 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize((side, side + 12), Image.Resampling.BICUBIC)


def draw(folder: Path, names: Callable[[str, int], str], counts: dict[str, int]) -> list[Path]:
    """``counts`` scenes of each colour; ``names(colour, number)`` is the path in ``folder``."""
    paths = []
    for index, (colour, count) in enumerate(counts.items()):
        for number in range(count):
            path = folder / names(colour, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            scene(1000 * index + number, COLOURS[colour]).save(path)
            paths.append(path)
    return paths


def counts(run: Run) -> list[tuple[int, ...]]:
    return [run.dataset().counts(name) for name in SPLITS]


def assert_it_learnt(run: Run, fall: float, top1: float) -> None:
    """The training loss fell to less than ``fall`` of what it was; the last epoch's top-1."""
    assert run.metrics[-1].loss < fall * run.metrics[0].loss
    assert run.metrics[-1].top1 >= top1


@pytest.mark.slow
def test_file_names_two_splits_stretched_and_one_sigmoid(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    draw(folder, lambda colour, n: f"{colour}_{n}.png", {"red": 40, "blue": 30})
    run = train(recipe_of("file names", folder), tmp_path / "run")
    assert run.labels == ("blue", "red")
    assert np.sum(counts(run)) == 60  # a limit of 30 each
    parts = np.sum(counts(run), axis=1) / 60
    np.testing.assert_allclose(parts, (0.72, 0.08, 0.2), atol=0.12)
    assert_it_learnt(run, fall=0.6, top1=0.85)
    assert {step.learning_rate for step in read_steps(run.steps_path)} == {3e-3}
    assert run.test_metrics.images == sum(counts(run)[2])


@pytest.mark.slow
def test_an_index_with_splits_and_strong_augmentation(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    paths = draw(folder, lambda c, n: f"{c}{n}.png", {"red": 30, "green": 12, "blue": 30})
    with open(folder / "list.csv", "w", encoding="utf-8", newline="") as stream:
        lines = csv.writer(stream)
        lines.writerow(["path", "label", "split"])
        for number, path in enumerate(paths):
            split = ("train", "train", "train", "train", "val", "test")[number % 6]
            lines.writerow([path.name, path.stem.rstrip("0123456789"), split])
    run = train(recipe_of("index", folder), tmp_path / "run")
    assert run.labels == ("blue", "green", "red")
    assert counts(run) == [(20, 8, 20), (5, 2, 5), (5, 2, 5)]
    assert_it_learnt(run, fall=0.92, top1=0.45)  # of mixed images; chance is 33
    assert max(row.val_top1 for row in run.metrics) >= 0.6


@pytest.mark.slow
def test_ready_splits_weighted_accumulated_in_bfloat16(tmp_path: Path) -> None:
    folder, sizes = tmp_path / "photos", {"red": 30, "blue": 12}
    splits = ("train", "train", "train", "train", "valid", "test")
    draw(folder, lambda colour, n: f"{splits[n % 6]}/{colour}/{n}.png", sizes)
    run = train(recipe_of("ready splits", folder), tmp_path / "run")
    assert counts(run) == [(8, 20), (2, 5), (2, 5)]
    assert_it_learnt(run, fall=0.9, top1=0.7)
    steps = read_steps(run.steps_path)
    assert len(steps) == 48  # 28 images in batches of 6, twelve times
    assert len({step.learning_rate for step in steps}) == 24  # two steps an update
    assert run.recipe.schedule.precision == "bfloat16"


@pytest.mark.slow
def test_orientation_of_grouped_pages(tmp_path: Path) -> None:
    folder = tmp_path / "pages"
    for number in range(72):  # light above, dark below, in books of three pages
        rows = np.linspace(220, 30, 72)[:, None, None] + np.zeros((72, 72, 3))
        noise = np.random.default_rng(number).normal(0, 15, (72, 72, 3))
        path = folder / f"book{number // 3}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(rows + noise, 0, 255).astype(np.uint8)).save(path)
    run = train(recipe_of("orientation", folder), tmp_path / "run")
    dataset = run.dataset()
    books = [{Path(e.path).parent.name for e in dataset.split(name)} for name in SPLITS]
    assert sum(map(len, books)) == len(set.union(*books)) == 24
    images = [len(books[0]) * 3, len(books[1]) * 12, len(books[2]) * 12]
    assert [len(dataset.split(name)) for name in SPLITS] == images
    assert len(set(dataset.counts("test"))) == 1
    assert [row.stage for row in run.metrics] == ["head"] + ["full"] * 4
    assert_it_learnt(run, fall=0.8, top1=0.5)
    assert run.test_metrics.orientation is not None


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of 24 people; of one picture of each third person another has a copy."""
    folder = tmp_path_factory.mktemp("photographs")
    draw(folder, lambda c, n: f"{c}/{c}{n % 8}-{n}.png", {"red": 24, "green": 24, "blue": 24})
    for colour in COLOURS:
        for number in range(0, 8, 3):
            with Image.open(folder / colour / f"{colour}{number}-{number}.png") as image:
                copy = image.resize((100, 116), Image.Resampling.BICUBIC)
            copy.save(folder / colour / f"{colour}{(number + 1) % 8}-copy.jpg", quality=90)
    return folder


@pytest.fixture(scope="module")
def teacher(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """ImageNet's features of the photographs, computed once, and a head on them."""
    progress, place = SilentProgress(), tmp_path_factory.mktemp("teacher")
    run = train(recipe_of("photographs", photographs), place / "run", progress=progress)
    assert progress.stages.count("features") == 2  # of training and validation
    return run


@pytest.mark.slow
def test_kept_features_of_groups_joined_by_copies(teacher: Run) -> None:
    dataset = teacher.dataset()
    split_of = {
        Path(e.path).name: name for name in SPLITS for e in dataset.split(name)
    }  # fmt: skip
    assert len(split_of) == 81
    people = {name.partition("-")[0]: split for name, split in split_of.items()}
    assert all(people[name.partition("-")[0]] == split for name, split in split_of.items())
    for colour in COLOURS:
        for number in range(0, 8, 3):
            copy = split_of[f"{colour}{(number + 1) % 8}-copy.jpg"]
            assert copy == split_of[f"{colour}{number}-{number}.png"]
    assert set(people.values()) == set(SPLITS)
    assert len(dataset.look_alikes) == 9
    assert_it_learnt(teacher, fall=0.7, top1=0.9)
    assert teacher.test_metrics.top1_percent >= 80  # chance is 33


@pytest.mark.slow
def test_a_distilled_student_answers_as_its_teacher(
    teacher: Run, photographs: Path, tmp_path: Path
) -> None:
    """It sees no label: all that it knows is what the teacher answers."""
    recipe = recipe_of("distilled", photographs, teachers=[str(teacher.folder)])
    run = train(recipe, tmp_path / "run")
    assert run.dataset().sha256 == teacher.dataset().sha256
    assert run.metrics[-1].top1 >= 0.85
    assert run.test_metrics.top1_percent >= 60  # chance is 33
