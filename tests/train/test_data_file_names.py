"""Labels from file names, as in Kaggle's dogs-vs-cats."""

from __future__ import annotations

from pathlib import Path

import pytest

from smidgen.runtime.errors import SchemaError
from smidgen.train import DataRecipe
from smidgen.train.data import SPLITS
from smidgen.train.data.scan import scan, take_inventory
from smidgen.train.errors import DataError

REPO = Path(__file__).resolve().parents[2]
CATS_DOGS = REPO.parent / "shared/data/cats_dogs"


def write(folder: Path, *names: str) -> Path:
    """Files whose content is their name: nothing here decodes them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(f"{folder.name}/{name}")
    return folder


def named(label: str, count: int, separator: str = ".") -> list[str]:
    return [f"{label}{separator}{n}.jpg" for n in range(count)]


def test_the_label_ends_at_the_first_separator(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", *named("cat", 5), *named("dog", 6), "dog.7.b.jpg", "notes.txt")
    write(folder / "deeper", *named("fox", 3))
    inventory = take_inventory(folder, DataRecipe(str(folder), labels="file-names"))
    assert inventory.labels == ("cat", "dog")
    assert [item.example.label for item in inventory.found] == [0] * 5 + [1] * 7
    assert (inventory.ignored_files, inventory.skipped) == (2, ())


def test_names_without_a_label_are_skipped_with_the_reason(tmp_path: Path) -> None:
    names = [*named("cat", 4, "_"), *named("dog", 4, "_"), "cat.jpg", "_3.jpg", " fox_1.jpg"]
    folder = write(tmp_path / "x", *names)
    dataset = scan(folder, DataRecipe(str(folder), labels="file-names", separator="_"))
    assert {Path(item.path).name: item.reason for item in dataset.skipped} == {
        "cat.jpg": "no label: there is no '_' in its name",
        "_3.jpg": "no label: '', which stands before '_', cannot name a class",
        " fox_1.jpg": "no label: ' fox', which stands before '_', cannot name a class",
    }
    assert sum(len(dataset.split(name)) for name in SPLITS) == 8


def test_ready_splits(tmp_path: Path) -> None:
    write(tmp_path / "x/train", *named("cat", 20), *named("dog", 20))
    write(tmp_path / "x/valid", *named("cat", 3), *named("dog", 2))
    folder = tmp_path / "x"
    recipe = DataRecipe(str(folder), labels="file-names")
    dataset = scan(folder, recipe)
    assert dataset.counts("validation") == (3, 2)
    assert len(dataset.train) + len(dataset.test) == 40
    write(folder / "valid", "fox.1.jpg")
    with pytest.raises(DataError, match=r"class 'fox' is in validation/ but not in train/"):
        scan(folder, recipe)


def test_groups_are_folders_only_there(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="both file-names"):
        DataRecipe("x", labels="file-names", group_by="file-names")
    folder = tmp_path / "x"
    for split, count in {"train": 9, "test": 3}.items():
        write(folder / split, *named("cat", count), *named("dog", count))
    recipe = DataRecipe(str(folder), labels="file-names", group_by="folder")
    assert {item.group for item in take_inventory(folder, recipe).found} == {""}


def test_no_label_at_all_is_one_line(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", "1.jpg", "2.jpg")
    with pytest.raises(DataError) as caught:
        scan(folder, DataRecipe(str(folder), labels="file-names"))
    assert "as cat.12.jpg (skipped, for instance, " in str(caught.value)
    assert "\n" not in str(caught.value)
    single = write(tmp_path / "one", *named("cat", 9))
    with pytest.raises(DataError, match=r"holds 1 class \('cat'\); at least two are needed"):
        scan(single, DataRecipe(str(single), labels="file-names"))


@pytest.mark.skipif(not CATS_DOGS.is_dir(), reason="shared/data/cats_dogs is not here")
def test_cats_and_dogs() -> None:
    dataset = scan(CATS_DOGS, DataRecipe(str(CATS_DOGS), labels="file-names", split=(80, 20)))
    assert dataset.labels == ("cat", "dog")
    counts = [len(dataset.split(name)) for name in SPLITS]
    assert sum(counts) + len(dataset.skipped) == 1399
    assert counts[2] / sum(counts) == pytest.approx(0.2, abs=0.035)
