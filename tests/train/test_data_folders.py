"""Class folders and ready splits: what is found, skipped, ignored and refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from smidgen.runtime.errors import SchemaError
from smidgen.train import DataRecipe, Dataset, Run
from smidgen.train.data import SPLITS, skipped_csv
from smidgen.train.data.scan import scan, take_inventory
from smidgen.train.errors import DataError


def split_of(dataset: Dataset) -> dict[str, str]:
    return {e.sha256: name for name in SPLITS for e in dataset.split(name)}


def test_class_folders(make_folder) -> None:  # type: ignore[no-untyped-def]
    folder = make_folder("photos", {"red": 12, "blue": 9})
    (folder / "red" / "notes.txt").write_text("not an image")
    (folder / "red" / ".hidden.png").write_bytes(b"x")
    (folder / "README").write_text("stray")
    (folder / ".cache").mkdir()
    dataset = scan(folder, DataRecipe(str(folder)))
    assert dataset.labels == ("blue", "red")
    assert sum(len(dataset.split(name)) for name in SPLITS) == 21
    assert dataset.ignored_files == 3
    assert all(Path(e.path).parent.name == dataset.labels[e.label] for e in dataset.train)


def test_links_to_nowhere_are_skipped_and_pipes_ignored(make_folder) -> None:  # type: ignore[no-untyped-def]
    folder = make_folder("photos", {"red": 4, "blue": 4})
    (folder / "red" / "gone.png").symlink_to(folder / "nowhere.png")
    os.mkfifo(folder / "red" / "pipe.png")
    inventory = take_inventory(folder, DataRecipe(str(folder)))
    assert [Path(item.path).name for item in inventory.skipped] == ["gone.png"]
    assert inventory.skipped[0].reason.startswith("cannot be read: No such file")
    assert (len(inventory.found), inventory.ignored_files) == (8, 1)


def test_file_names_that_are_no_utf8_are_kept(make_folder, tmp_path) -> None:  # type: ignore[no-untyped-def]
    folder = make_folder("photos", {"red": 6, "blue": 6})
    odd = os.fsdecode(os.fsencode(folder) + b"/red/caf\xe9")
    (folder / "red/0000.png").rename(f"{odd}.png")
    shutil.copy(f"{odd}.png", f"{odd}-twin.png")
    dataset = scan(folder, DataRecipe(str(folder)))
    run = Run(tmp_path / "run")
    run.keep_dataset(dataset)
    assert run.dataset() == dataset
    assert any("caf\udce9" in e.path for name in SPLITS for e in run.dataset().split(name))
    assert "red/caf\\udce9.png,the same content" in run.skipped_path.read_text("utf-8")


def test_class_names_are_what_labels_can_be(tmp_path) -> None:  # type: ignore[no-untyped-def]
    fine = ["grüne Blätter 🌿", 'it\'s, "quoted"', "می\u200cخواهم", "👩\u200d🔬"]
    for number, name in enumerate(sorted(fine) * 3):
        path = tmp_path / "fine" / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]))
    assert scan(tmp_path / "fine", DataRecipe("x")).labels == tuple(sorted(fine))
    for number, name in enumerate(("tail ", "\u00a0head", "two\nlines", "a\u2028b", "\udce9")):
        path = tmp_path / f"bad{number}" / name / "0.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"0")
        with pytest.raises(DataError, match=r"class folder '.*' cannot name a class"):
            scan(tmp_path / f"bad{number}", DataRecipe("x"))


def test_renaming_a_file_moves_nothing(make_folder) -> None:  # type: ignore[no-untyped-def]
    folder = make_folder("photos", {"red": 12, "blue": 9})
    before = scan(folder, DataRecipe(str(folder)))
    (folder / "red" / "0003.png").rename(folder / "red" / "zzz.png")
    after = scan(folder, DataRecipe(str(folder)))
    assert (split_of(after), after.sha256) == (split_of(before), before.sha256)
    (folder / "red" / "zzz.png").unlink()
    assert scan(folder, DataRecipe(str(folder))).sha256 != before.sha256


def test_ready_splits_stay_as_they_are(make_folder) -> None:  # type: ignore[no-untyped-def]
    for seed, (split, count) in enumerate({"train": 6, "val": 2, "test": 3}.items()):
        make_folder(f"photos/{split}", {"red": count, "blue": count}, first_seed=100 * seed)
    root = make_folder("photos", {})
    dataset = scan(root, DataRecipe(str(root)))
    assert [dataset.counts(name) for name in SPLITS] == [(6, 6), (2, 2), (3, 3)]
    assert {Path(e.path).parts[-3] for e in dataset.validation} == {"val"}
    make_folder("photos/more", {"red": 2}, first_seed=900)  # neither a split nor a class
    assert scan(root, DataRecipe(str(root))) == replace(dataset, ignored_files=1)


def test_an_absent_split_is_cut_out_of_train(make_folder) -> None:  # type: ignore[no-untyped-def]
    make_folder("photos/train", {"red": 40, "blue": 40})
    make_folder("photos/test", {"red": 5, "blue": 5}, first_seed=500)
    root = make_folder("photos", {})
    dataset = scan(root, DataRecipe(str(root)))
    assert dataset.counts("test") == (5, 5)
    assert min(dataset.counts("validation")) >= 1
    assert len(dataset.train) + len(dataset.validation) == 80


def test_a_copy_in_test_is_not_trained_on(make_folder) -> None:  # type: ignore[no-untyped-def]
    for seed, split in enumerate(("train", "validation", "test")):
        make_folder(f"photos/{split}", {"red": 4, "blue": 4}, first_seed=100 * seed)
    root = make_folder("photos", {})
    shutil.copy(root / "test/red/0000.png", root / "train/red/copy.png")
    dataset = scan(root, DataRecipe(str(root)))
    assert [dataset.counts(name) for name in SPLITS] == [(4, 4)] * 3
    assert [Path(item.path).name for item in dataset.skipped] == ["copy.png"]
    assert "the same content as" in dataset.skipped[0].reason


def test_content_under_two_labels_is_skipped(make_folder) -> None:  # type: ignore[no-untyped-def]
    folder = make_folder("photos", {"red": 5, "blue": 5})
    shutil.copy(folder / "red/0000.png", folder / "blue/same.png")
    shutil.copy(folder / "red/0001.png", folder / "red/twin.png")
    dataset = scan(folder, DataRecipe(str(folder)))
    assert sum(len(dataset.split(name)) for name in SPLITS) == 9
    reasons = {Path(item.path).name: item.reason for item in dataset.skipped}
    assert reasons["same.png"] == "the same content is in the classes blue, red"
    assert set(reasons) == {"same.png", "0000.png", "twin.png"}
    assert skipped_csv(dataset.skipped).count("\n") == 4


def test_limit_takes_the_same_images_each_time(make_folder) -> None:  # type: ignore[no-untyped-def]
    folder = make_folder("photos", {"red": 30, "blue": 6})
    limited = take_inventory(folder, DataRecipe(str(folder), limit=10))
    again = take_inventory(folder, DataRecipe(str(folder), limit=10))
    assert limited == again
    labels = [item.example.label for item in limited.found]
    assert (labels.count(1), labels.count(0)) == (10, 6)
    assert min(scan(folder, DataRecipe(str(folder), limit=10)).counts("test")) >= 1
    assert sum(scan(folder, DataRecipe(str(folder), limit=3)).counts("train")) == 2
    with pytest.raises(SchemaError, match=r"data\.limit = 2: allowed 0 .* or at least 3"):
        DataRecipe(str(folder), limit=2)


def test_bad_folders_are_told_in_one_line(make_folder, tmp_path) -> None:  # type: ignore[no-untyped-def]
    def reason(folder: Path) -> str:
        with pytest.raises(DataError) as caught:
            scan(folder, DataRecipe(str(folder)))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    (tmp_path / "empty").mkdir()
    (tmp_path / "two" / "a").mkdir(parents=True)
    (tmp_path / "two" / "b").mkdir()
    assert "is not a folder" in reason(tmp_path / "absent")
    assert "it holds no folder" in reason(tmp_path / "empty")
    assert "holds no image" in reason(tmp_path / "two")
    (tmp_path / "deep" / "Train").mkdir(parents=True)
    (tmp_path / "deep" / "Test" / "red").mkdir(parents=True)
    assert "name ready splits train/ with" in reason(tmp_path / "deep")
    assert "holds 1 class ('red')" in reason(make_folder("one", {"red": 5}))
    assert "class 'red' has 1 usable image; at least 3" in reason(
        make_folder("few", {"red": 1, "blue": 9})
    )
    assert "class 'blue' in" in reason(_with_empty_class(make_folder("hole", {"red": 5})))
    assert "5 images lie directly in it" in reason(make_folder("flat", {"red": 5}) / "red")


def test_a_class_without_training_images_is_an_error(make_folder) -> None:  # type: ignore[no-untyped-def]
    make_folder("photos/train", {"red": 5, "blue": 5})
    make_folder("photos/test", {"red": 5, "green": 5}, first_seed=900)
    root = make_folder("photos", {})
    with pytest.raises(DataError, match=r"class 'green' is in test/ but not in train/"):
        scan(root, DataRecipe(str(root)))


def test_classes_may_be_absent_from_ready_held_out_splits(make_folder) -> None:  # type: ignore[no-untyped-def]
    make_folder("photos/train", {"red": 5, "blue": 5})
    make_folder("photos/test", {"red": 5}, first_seed=900)
    root = make_folder("photos", {})
    dataset = scan(root, DataRecipe(str(root)))
    assert dataset.counts("test") == (0, 5)
    assert [dataset.absent(name) for name in SPLITS] == [(), (), ("blue",)]
    shutil.rmtree(root / "train/red")
    (root / "train/red").mkdir()
    with pytest.raises(DataError, match=r"class 'red' in train/ has 0 usable images"):
        scan(root, DataRecipe(str(root)))


def test_two_folders_for_one_split_are_an_error(make_folder) -> None:  # type: ignore[no-untyped-def]
    for split in ("train", "val", "valid"):
        make_folder(f"photos/{split}", {"red": 3, "blue": 3})
    root = make_folder("photos", {})
    with pytest.raises(DataError, match="both val/ and valid/"):
        scan(root, DataRecipe(str(root)))


def _with_empty_class(folder: Path) -> Path:
    (folder / "blue").mkdir()
    return folder


def test_describing_the_data_imports_nothing_heavy() -> None:
    heavy = {"keras", "tensorflow", "jax", "matplotlib", "PIL", "imagehash", "scipy"}
    program = (
        "import sys, smidgen.train.data.scan, smidgen.train.data.report, "
        "smidgen.train.data.near_duplicates, smidgen.train.run, smidgen.train.recipe\n"
        f"print({heavy!r} & set(sys.modules))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert shown.stdout.strip() == "set()", shown
