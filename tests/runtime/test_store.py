"""The store of models on a device: installing, going back, and everything that goes wrong."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
import pytest
from power_cuts import FailingDisk, HastyDisk, PickyEngine

from smidgen.runtime.errors import (
    ArgumentInvalid,
    BundleDamaged,
    BundleUntrusted,
    EngineFailed,
    NotABundle,
    OutputError,
    SelfTestFailed,
    SmidgenError,
    StoreBusy,
    StoreEmpty,
)
from smidgen.runtime.fake import brightness_scores
from smidgen.runtime.manifest import Preprocessing
from smidgen.runtime.selftest import make_golden
from smidgen.runtime.store import ModelStore

ENGINE = PickyEngine(model_format="tflite")
Models = Callable[[str], Path]


@pytest.fixture
def models(make_bundle: Callable[..., Path], photo_png: bytes, tmp_path: Path) -> Models:
    """``models("a")``: a Bundle of that name, right for FakeEngine."""
    size = Preprocessing(width=8, height=8)
    golden = make_golden(photo_png, size, lambda x: brightness_scores(x, 3), ["r", "g", "b"], 1e-4)
    names = {"r": "red", "g": "grün", "b": "blue"}
    golden = type(golden)(**{**vars(golden), "label": names[golden.label]})

    def make(name: str) -> Path:
        path = tmp_path / f"{name}.tflite"
        if not path.exists():  # made again, its zip would have another time inside
            shutil.move(make_bundle(name=name, golden=golden), path)
        return path

    return make


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "deep" / "store", files=HastyDisk())


def name_of(store: ModelStore, engine: PickyEngine = ENGINE) -> str:
    """The name of the model that an application gets; it answers."""
    with store.classifier(backend=engine) as classifier:
        assert classifier.classify(np.full((8, 8, 3), 250, np.uint8)).label == "blue"
        return classifier.manifest.name


def files_in(store: ModelStore) -> list[str]:
    """The files of the folder: models by their number."""
    return sorted(path.name.partition("-")[0] for path in store.current().parent.iterdir())


def test_an_update_and_the_way_back(models: Models, store: ModelStore, tmp_path: Path) -> None:
    first = store.install(models("a"), backend=ENGINE)
    assert first.path == store.current() == tmp_path / "deep/store" / first.path.name
    assert first.path.read_bytes() == (tmp_path / "a.tflite").read_bytes()
    assert first.path.name == f"000001-{first.sha256}.tflite" and not first.confirmed
    assert name_of(store) == "a"
    assert [one.confirmed for one in store.history()] == [True]
    second = store.install(models("b"), backend=ENGINE)
    assert name_of(store) == "b"
    assert [one.sha256 for one in store.history()] == [second.sha256, first.sha256]
    assert store.rollback().sha256 == first.sha256
    assert (name_of(store), files_in(store)) == ("a", ["000001", "current"])
    with pytest.raises(StoreEmpty, match="no previous model: install a Bundle"):
        store.rollback()
    assert name_of(store) == "a"


@pytest.mark.parametrize("keep", [1, 3])
def test_as_many_old_models_are_kept_as_were_asked_for(
    models: Models, tmp_path: Path, keep: int
) -> None:
    store = ModelStore(tmp_path / "store", keep=keep, files=HastyDisk())
    for name in "abcde":
        store.install(models(name), backend=ENGINE)
        assert name_of(store) == name
    assert files_in(store) == [f"{5 - back:06}" for back in reversed(range(keep + 1))] + ["current"]
    for name in "dcb"[:keep]:
        store.rollback()
        assert name_of(store) == name


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_last_confirmed_model_is_kept_whatever_was_installed_since(
    models: Models, store: ModelStore
) -> None:
    store.install(models("a"), backend=ENGINE)
    assert name_of(store) == "a"
    for name in "bcd":
        store.install(models(name), backend=ENGINE)
    assert name_of(store, PickyEngine(model_format="tflite", refuses=("d",))) == "a"


def test_an_empty_store_says_so_in_one_line(store: ModelStore, tmp_path: Path) -> None:
    for act in (store.current, store.classifier, store.rollback):
        with pytest.raises(StoreEmpty, match=r"deep/store holds no .*install a Bundle") as caught:
            act()
        assert "\n" not in str(caught.value)
    assert store.history() == () and not store.changed()
    assert list(tmp_path.iterdir()) == []  # asking makes nothing
    for keep in (0, -1, 1.0, True):
        with pytest.raises(ArgumentInvalid, match="keep = "):
            ModelStore(tmp_path, keep=keep)  # type: ignore[arg-type]


def test_what_fails_its_selftest_never_becomes_current(
    models: Models, make_bundle: Callable[..., Path], store: ModelStore, tmp_path: Path
) -> None:
    store.install(models("a"), backend=ENGINE)
    before = files_in(store)
    wrong = make_bundle(name="wrong")  # its golden scores are another model's
    with pytest.raises(SelfTestFailed, match=rf"^{wrong}: stage 'scores'"):
        store.install(wrong, backend=ENGINE)
    with pytest.raises(SelfTestFailed, match="no golden sample"):
        store.install(make_bundle(golden=None), backend=ENGINE)
    with pytest.raises(EngineFailed, match="refused b"):
        store.install(models("b"), backend=PickyEngine(model_format="tflite", refuses=("b",)))
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(models("c").read_bytes()[:-200])
    with pytest.raises((NotABundle, BundleDamaged)):
        store.install(cut, backend=ENGINE)
    assert (name_of(store), files_in(store)) == ("a", before)


def test_the_same_model_again_changes_nothing(models: Models, store: ModelStore) -> None:
    first = store.install(models("a"), backend=ENGINE)
    written = store.current().stat().st_mtime_ns
    assert store.install(models("a"), backend=ENGINE) == first
    assert store.current().stat().st_mtime_ns == written
    with pytest.raises(EngineFailed):  # but it is tested
        store.install(models("a"), backend=PickyEngine(model_format="tflite", refuses=("a",)))
    store.install(models("b"), backend=ENGINE)
    assert store.install(models("a"), backend=ENGINE).path.name.startswith("000003-")
    assert files_in(store) == ["000002", "000003", "current"]


def test_a_model_that_fails_in_the_application_is_taken_back(
    models: Models, store: ModelStore
) -> None:
    """The installer's engine ran it; the application's does not."""
    store.install(models("a"), backend=ENGINE)
    assert name_of(store) == "a"
    store.install(models("b"), backend=ENGINE)
    picky = PickyEngine(model_format="tflite", refuses=("b",))
    with pytest.warns(RuntimeWarning, match="refused b; 000001-.* is used instead"):
        assert name_of(store, picky) == "a"
    assert (name_of(store), len(store.history())) == ("a", 1)  # for good


def test_wrong_options_take_nothing_back(models: Models, store: ModelStore) -> None:
    store.install(models("a"), backend=ENGINE)
    assert name_of(store) == "a"
    store.install(models("b"), backend=ENGINE)
    for options, error in (({"backend": "litter"}, SmidgenError), ({"bogus": 1}, TypeError)):
        with pytest.raises(error):
            store.classifier(**options)
        assert store.current().name.startswith("000002")
    assert name_of(store) == "b" and len(store.history()) == 2
    with pytest.warns(RuntimeWarning, match="refused b"):  # confirmed: it failed here, once
        assert name_of(store, PickyEngine(model_format="tflite", refuses=("b",))) == "a"
    assert name_of(store) == "b"
    with pytest.raises(EngineFailed, match="refused b"):  # the current one's reason
        store.classifier(backend=PickyEngine(model_format="tflite", refuses=("a", "b")))


def die_in_trial(store: ModelStore, name: str) -> None:
    """An application that the engine kills while it opens the model ``name``."""
    process = os.fork()
    if process == 0:
        try:
            store.classifier(backend=PickyEngine(model_format="tflite", dies_of=(name,)))
        finally:
            os._exit(3)
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status)


def test_a_model_that_kills_the_application_is_taken_back(
    models: Models, store: ModelStore
) -> None:
    store.install(models("a"), backend=ENGINE)
    die_in_trial(store, "a")
    assert name_of(store) == "a"  # the only one is never given up
    store.install(models("b"), backend=ENGINE)
    assert store.current().name.startswith("000002")
    die_in_trial(store, "b")
    assert store.current().name.startswith("000001")
    assert not store.changed()
    with pytest.warns(RuntimeWarning, match="000002-.* did not survive its first use"):
        assert name_of(store) == "a"
    assert files_in(store) == ["000001", "current"]
    store.install(models("b"), backend=ENGINE)
    die_in_trial(store, "b")
    with pytest.warns(RuntimeWarning, match="did not survive"):
        store.install(models("c"), backend=ENGINE)
    assert name_of(store) == "c"
    assert store.rollback().path.name.startswith("000001")


def test_a_long_running_process_sees_that_the_model_changed(models: Models, tmp_path: Path) -> None:
    store, updater = (ModelStore(tmp_path / "store", files=HastyDisk()) for _ in range(2))
    assert not store.changed()
    updater.install(models("a"), backend=ENGINE)
    assert store.changed()
    assert name_of(store) == "a" and not store.changed()
    updater.install(models("a"), backend=ENGINE)
    assert not store.changed()
    updater.install(models("b"), backend=ENGINE)
    assert store.changed() and name_of(store) == "b" and not store.changed()
    updater.rollback()
    assert store.changed() and name_of(store) == "a" and not store.changed()


def damage_nothing(path: Path) -> None:
    path.unlink()


def damage_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def damage_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def damage_all(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


DAMAGES = [damage_nothing, damage_half, damage_a_bit, damage_all]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_damaged_current_model_gives_way_to_the_one_before(
    models: Models, store: ModelStore, damage: Callable[[Path], None]
) -> None:
    for name in "ab":
        store.install(models(name), backend=ENGINE)
        assert name_of(store) == name
    damage(store.current())
    assert store.current().name.startswith("000001")
    assert name_of(store) == "a"
    store.install(models("b"), backend=ENGINE)  # the same content, whole again
    assert name_of(store) == "b"
    damage(store.current())
    store.install(models("c"), backend=ENGINE)
    assert store.rollback().path.name.startswith("000001")  # what is damaged is not gone back to
    damage(store.current())
    with pytest.raises(StoreEmpty, match="no intact model"):
        store.current()
    with pytest.raises(SmidgenError):
        name_of(store)
    store.install(models("c"), backend=ENGINE)
    assert name_of(store) == "c"


RECORDS: list[Optional[str]] = [
    None,
    "",
    "\0" * 90,
    "{",
    "[]",
    '{"models": [], "on_trial": false}',
    '{"models": [{"file": "../../a.tflite", "confirmed": true}], "on_trial": false}',
    '{"models": [{"file": 5}]}',
    "[" * 100_000,
    '{"more": 1}',
]


@pytest.mark.parametrize("text", RECORDS, ids=lambda text: repr(text)[:20])
def test_a_damaged_record_is_made_again_from_the_files(
    models: Models, store: ModelStore, text: Optional[str]
) -> None:
    for name in "ab":
        store.install(models(name), backend=ENGINE)
        assert name_of(store) == name
    record = store.current().parent / "current"
    before = json.loads(record.read_text())
    if text is None:
        record.unlink()
    else:
        record.write_text(text)
    assert store.current().name.startswith("000002")
    assert name_of(store) == "b"
    after = json.loads(record.read_text())
    assert [one["file"] for one in after["models"]] == [one["file"] for one in before["models"]]
    record.write_text(text or "")
    damage_half(store.current())
    with pytest.warns(RuntimeWarning):
        assert name_of(store) == "a"


def test_one_installer_at_a_time_and_readers_need_no_lock(
    models: Models, store: ModelStore
) -> None:
    store.install(models("a"), backend=ENGINE)
    assert name_of(store) == "a"
    handle = os.open(store.current().parent, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    for act in (lambda: store.install(models("b"), backend=ENGINE), store.rollback):
        with pytest.raises(StoreBusy, match=r"cannot be locked .*: wait until the other"):
            act()
    assert name_of(store) == "a" and not store.changed() and len(store.history()) == 1
    os.close(handle)  # as when its process dies
    store.install(models("b"), backend=ENGINE)
    assert name_of(store) == "b"


ERRORS = [errno.ENOSPC, errno.EACCES, errno.EIO]


@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.__getitem__)
@pytest.mark.parametrize("for_good", [False, True])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_whatever_operation_fails_the_old_or_the_new_model_works(
    models: Models, tmp_path: Path, code: int, for_good: bool
) -> None:
    bundles = {name: models(name) for name in "abc"}
    error, number, outcomes = OSError(code, os.strerror(code)), 0, []
    while True:
        folder = tmp_path / f"store-{number}"
        sound = ModelStore(folder, files=HastyDisk())
        sound.install(bundles["a"], backend=ENGINE)
        name_of(sound)
        sound.install(bundles["b"], backend=ENGINE)
        name_of(sound)
        disk = FailingDisk(error, number, 10**6 if for_good else number)
        store = ModelStore(folder, files=disk)
        try:
            store.install(bundles["c"], backend=ENGINE)
            outcomes.append("c")
        except OutputError as caught:
            assert "\n" not in str(caught) and str(folder) in str(caught)
            outcomes.append("b")
        got = name_of(store)
        assert got in ("b", "c") if code == errno.EIO or number > 5 else got == outcomes[-1]
        assert name_of(sound) in ("b", "c")
        sound.install(bundles["a"], backend=ENGINE)
        assert name_of(sound) == "a" and len(files_in(sound)) == 3
        if disk.count <= number:
            break
        number += 1
    assert number >= 9 and outcomes[:5] == ["b"] * 5 and outcomes[-1] == "c"


def test_a_disk_that_is_full_says_so(models: Models, store: ModelStore, tmp_path: Path) -> None:
    full = FailingDisk(OSError(errno.ENOSPC, "No space left on device"), 0, 10**6)
    with pytest.raises(OutputError, match=r"disk full while writing .*store: free some space"):
        ModelStore(tmp_path / "x" / "store", files=full).install(models("a"), backend=ENGINE)
    store.install(models("a"), backend=ENGINE)
    assert name_of(store) == "a"
    store.install(models("b"), backend=ENGINE)
    poor = ModelStore(store.current().parent, files=full)
    assert name_of(poor) == "a"  # nobody would know if the new one killed us: not risked
    assert name_of(store) == "b"


def test_a_reader_that_must_not_write_gets_the_new_model(models: Models, store: ModelStore) -> None:
    """An application of another user, or a read-only system: there are no trials."""
    for name in "ab":
        store.install(models(name), backend=ENGINE)
        denied = FailingDisk(OSError(errno.EACCES, "Permission denied"), 0, 10**6)
        reader = ModelStore(store.current().parent, files=denied)
        assert reader.changed() and name_of(reader) == name and not reader.changed()
    picky = PickyEngine(model_format="tflite", refuses=("b",))
    with pytest.warns(RuntimeWarning, match="refused b"):
        assert name_of(reader, picky) == "a"
    assert not reader.changed()
    assert name_of(store) == "b"


def test_leftovers_go_and_what_is_not_ours_stays(models: Models, store: ModelStore) -> None:
    first = store.install(models("a"), backend=ENGINE)
    folder = first.path.parent
    (folder / ".incoming.tflite").write_bytes(b"half")
    (folder / ".incoming.json").write_bytes(b"half")
    (folder / f"000009-{'0' * 64}.tflite").write_bytes(b"named by nothing")
    (folder / "notes-of-mine.txt").write_text("keep")
    store.install(models("b"), backend=ENGINE)
    assert files_in(store) == ["000001", "000010", "current", "notes"]


def test_a_folder_that_is_a_file_is_one_line(models: Models, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "store"):
        with pytest.raises(OutputError, match="cannot write"):
            ModelStore(folder).install(models("a"), backend=ENGINE)


@pytest.mark.parametrize("isolate", [False, True])
def test_with_a_real_engine_and_a_real_disk(
    make_bundle: Any, tmp_path: Path, isolate: bool
) -> None:
    pytest.importorskip("ai_edge_litert")
    store = ModelStore(tmp_path / "store")
    store.install(make_bundle("tflite", "int8"), isolate=isolate)
    with store.classifier(threads=1, isolate=isolate) as classifier:
        assert classifier.classify(np.full((8, 8, 3), (250, 0, 0), np.uint8)).label == "red"
        store.install(make_bundle("tflite", "float32"))  # the lock is not the classifier's
    assert store.history()[1].confirmed


def test_a_trusted_key_is_asked_of_everything(models: Models, store: ModelStore) -> None:
    pytest.importorskip("cryptography")
    with pytest.raises(BundleUntrusted, match=r"a.tflite: not signed"):
        store.install(models("a"), backend=ENGINE, trusted_key=bytes(32))
    with pytest.raises(StoreEmpty):
        store.current()
    for name in "ab":
        store.install(models(name), backend=ENGINE)
        assert name_of(store) == name
    with pytest.raises(BundleUntrusted, match="000002-"):
        store.classifier(backend=ENGINE, trusted_key=bytes(32))
    assert name_of(store) == "b"
