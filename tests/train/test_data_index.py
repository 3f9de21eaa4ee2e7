"""Index files: columns, splits, groups, and what is said about each wrong line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smidgen.train import DataRecipe, Run
from smidgen.train.data import SPLITS, Inventory
from smidgen.train.data.scan import scan, take_inventory
from smidgen.train.errors import DataError


def write(folder: Path, text: str | bytes, name: str = "index.csv") -> Path:
    """The index and, for each path in it, a file whose content is its name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(text.encode("utf-8") if isinstance(text, str) else text)
    return folder


def images(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def inventory(folder: Path, **settings: str) -> Inventory:
    return take_inventory(folder, DataRecipe(str(folder), labels="index", **settings))  # type: ignore[arg-type]


def test_paths_labels_and_other_columns(tmp_path: Path) -> None:
    names = [f"a/{n}.jpg" for n in range(4)] + [f"b/with, comma {n}.tiff" for n in range(4)]
    images(tmp_path, *names)
    rows = [f'{n},"{name}",{"oak" if n < 4 else "ash"}' for n, name in enumerate(names)]
    write(tmp_path, "\ufeffid,path,label\r\n" + "\r\n".join(rows) + "\r\n\r\n")
    found = inventory(tmp_path)
    assert found.labels == ("ash", "oak")
    assert [item.example.label for item in found.found] == [1] * 4 + [0] * 4
    assert Path(found.found[5].example.path) == tmp_path / "b/with, comma 1.tiff"
    assert {item.split for item in found.found} == {None}
    assert {item.group for item in found.found} == {""}


def test_splits_and_groups(tmp_path: Path) -> None:
    names = [f"{n}.png" for n in range(40)]
    images(tmp_path / "here", *names)
    rows = [
        f"{name},{'ab'[n % 2]},{'test' if n >= 32 else 'train'},{n // 4 or ''}"
        for n, name in enumerate(names)
    ]
    write(tmp_path / "here", "\n".join(["path,label,split,group", *rows]), "list.csv")
    found = inventory(tmp_path, index="here/list.csv")
    assert [item.group for item in found.found[:6]] == ["", "", "", "", "1", "1"]
    assert found.ready_splits == {"train", "test"}
    dataset = scan(tmp_path, DataRecipe(str(tmp_path), labels="index", index="here/list.csv"))
    assert dataset.counts("test") == (4, 4)
    of_validation = {int(Path(e.path).stem) // 4 for e in dataset.validation} - {0}
    of_train = {int(Path(e.path).stem) // 4 for e in dataset.train} - {0}
    assert of_validation
    assert not of_validation & of_train
    with pytest.raises(DataError, match=r"column group, and data.group_by is 'folder'; keep one"):
        inventory(tmp_path, index="here/list.csv", group_by="folder")


def test_files_that_do_not_exist_are_skipped_and_counted(tmp_path: Path) -> None:
    images(tmp_path, "0.png", "1.png")
    os.mkfifo(tmp_path / "pipe.png")
    write(tmp_path, "path,label\n0.png,a\n1.png,b\ngone.png,a\npipe.png,a\n")
    skipped = {Path(item.path).name: item.reason for item in inventory(tmp_path).skipped}
    assert skipped == {
        "gone.png": "listed in index.csv, but no such file",
        "pipe.png": "listed in index.csv, but it is not a file",
    }


def test_images_outside_the_folder_survive_in_the_run(tmp_path: Path) -> None:
    images(tmp_path / "else", *(f"{n}.png" for n in range(8)))
    rows = [f"../else/{n}.png,{'ab'[n % 2]}" for n in range(4)]
    rows += [f"{tmp_path}/else/{n}.png,{'ab'[n % 2]}" for n in range(4, 8)]
    folder = write(tmp_path / "data", "\n".join(["path,label", *rows]))
    dataset = scan(folder, DataRecipe(str(folder), labels="index"))
    run = Run(tmp_path / "run")
    run.keep_dataset(dataset)
    assert run.dataset() == dataset
    assert all(Path(e.path).is_file() for name in SPLITS for e in run.dataset().split(name))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"index\.csv, line 1: no column 'path' in ''; expected path,label"),
        ("path;label\n0.png;a\n", r"line 1: no column 'path' in 'path;label'"),
        ("path,label,label\n", r"line 1: the column label is there twice"),
        ("path,label\n", r"lists no image; expected a line of path,label"),
        ("path,label\n0.png,a\n1.png\n", r"line 3: 1 fields; expected 2, as in line 1"),
        ("path,label\n,a\n", r"line 2: path is ''; expected the path of an image"),
        ("path,label\n0.png,\n", r"line 2: '' cannot name a class"),
        ("path,label\n0.png, a\n", r"line 2: ' a' cannot name a class"),
        ("path,label\n0.png,a\n0.png,b\n", r"line 3: 0\.png is in line 2 already"),
        ("path,label,split\n0.png,a,train\n1.png,b,dev\n", r"line 3: split is 'dev'; expected one"),
        ("path,label,split\n0.png,a,train\n1.png,b,\n", r"line 3: split is ''; expected one of tr"),
        ("path,label,split\n0.png,a,train\n1.png,b,val\n", r"line 3: class 'b' is in validation"),
        ('path,label\n0.png,"a\n', r"line 2: not CSV: unexpected end of data"),
        (b"path,label\n0.png,caf\xe9\n", r"bytes that are no UTF-8; save the file as UTF-8"),
        ("path,label\nx.png,a\n", r"none of the 1 listed files exists: .*x\.png"),
    ],
)
def test_wrong_lines_are_named(tmp_path: Path, text: str | bytes, said: str) -> None:
    images(tmp_path, "0.png", "1.png")
    with pytest.raises(DataError, match=said) as caught:
        inventory(write(tmp_path, text))
    assert str(tmp_path / "index.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_index_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*other\.csv \(No such file .*data\.index"):
        inventory(tmp_path, index="other.csv")
