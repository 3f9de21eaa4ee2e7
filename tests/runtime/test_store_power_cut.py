"""The power is cut at every step of a device's life with a model store: a model always works."""

from __future__ import annotations

import hashlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Callable, NamedTuple

import numpy as np
import pytest
from power_cuts import DarkeningDisk, HastyDisk, PickyEngine, Tree, restore

from smidgen.runtime.errors import StoreError
from smidgen.runtime.fake import brightness_scores
from smidgen.runtime.manifest import Preprocessing
from smidgen.runtime.selftest import make_golden
from smidgen.runtime.store import ModelStore

ENGINE = PickyEngine(model_format="tflite", refuses=("d",))
LENIENT = PickyEngine(model_format="tflite")
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture
def bundles(make_bundle: Callable[..., Path], photo_png: bytes, tmp_path: Path) -> dict[str, Path]:
    """Five models; all but "d" run on ENGINE."""
    size, labels = Preprocessing(width=8, height=8), ("red", "grün", "blue")
    golden = make_golden(photo_png, size, lambda x: brightness_scores(x, 3), labels, 1e-4)
    made = {}
    for name in "abcde":
        made[name] = tmp_path / f"{name}.tflite"
        shutil.move(make_bundle(name=name, golden=golden), made[name])
    return made


class Step(NamedTuple):
    """A change of a store. Models are named by one letter, " " is an empty store."""

    do: Callable[[ModelStore], object]
    during: str
    """The models that may be current when the power is cut meanwhile."""
    done: str
    """The same when it has returned: what it did must last."""
    next: str
    """The same when then the power is cut again, while an application opens its model."""


class Cut(NamedTuple):
    """What may be there after a cut, and which models may be the current one then."""

    tree: Tree
    allowed: str
    next: str


def life(bundles: dict[str, Path]) -> list[Step]:
    """Everything that changes a store."""

    def install(name: str) -> Callable[[ModelStore], object]:
        return lambda store: store.install(bundles[name], backend=LENIENT)

    def use(store: ModelStore) -> None:
        store.classifier(backend=ENGINE).close()

    return [
        Step(install("a"), " a", "a", " a"),
        Step(use, "a", "a", "a"),
        Step(install("b"), "ab", "b", "ab"),
        Step(use, "ab", "b", "ab"),
        Step(install("c"), "bc", "c", "bc"),
        Step(use, "bc", "c", "bc"),
        Step(install("d"), "cd", "cd", "cd"),
        Step(use, "cd", "c", "c"),  # refused in the application: it goes back to c
        Step(install("a"), "ac", "a", "ac"),
        Step(install("b"), "ab", "b", "abc"),  # nobody has used a: c is kept
        Step(ModelStore.rollback, "bc", "c", "bc"),
        Step(install("a"), "ac", "a", "ac"),
        Step(use, "ac", "a", "ac"),
    ]


def cuts_of(bundles: dict[str, Path], root: Path, forgets: str = "") -> list[Cut]:
    """What every cut of a life may leave, each tree once for the same models allowed."""
    root.mkdir()
    disk = DarkeningDisk(root, forgets)
    store = ModelStore(root / "store", files=disk)
    found = {}
    for step in life(bundles):
        start = len(disk.moments)
        step.do(store)
        disk.note()
        for place, trees in enumerate(disk.moments[start:], start + 1):
            allowed = step.done if place == len(disk.moments) else step.during
            for tree in trees:
                found[key_of(tree), allowed, step.next] = Cut(tree, allowed, step.next)
    return list(found.values())


def key_of(tree: Tree) -> str:
    return json.dumps({name: hashlib.sha1(data).hexdigest() for name, data in tree.items()})


def works(root: Path, allowed: str, engine: PickyEngine = ENGINE) -> str:
    """The name of the model that an application gets from the store of ``root``; " " for none."""
    store = ModelStore(root / "store", files=HastyDisk())
    try:
        path = store.current()
    except StoreError:
        assert " " in allowed
        return " "
    assert hashlib.sha256(path.read_bytes()).hexdigest() in path.name
    with store.classifier(backend=engine) as classifier:
        assert classifier.classify(np.full((8, 8, 3), 250, np.uint8)).label == "blue"
        name = classifier.manifest.name
    assert name in allowed
    assert not store.changed() and store.history()[0].confirmed
    return name


def goes_on(root: Path, bundles: dict[str, Path]) -> None:
    """After a cut the next update works as ever, and takes what the cut left away."""
    store = ModelStore(root / "store", files=HastyDisk())
    store.install(bundles["e"], backend=ENGINE)
    assert works(root, "e") == "e"
    assert len(list((root / "store").iterdir())) <= 3
    assert not list((root / "store").glob(".incoming*"))


def test_after_every_cut_the_old_or_the_new_model_works(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    cuts = cuts_of(bundles, tmp_path / "life")
    seen = set()
    for number, cut in enumerate(cuts):
        root = tmp_path / f"{number}"
        root.mkdir()
        restore(cut.tree, root)
        seen.add((cut.allowed, works(root, cut.allowed)))
        goes_on(root, bundles)
        shutil.rmtree(root)
    assert len(cuts) > 150
    # both sides of an update were seen, the old model and the new one
    assert seen >= {(" a", " "), (" a", "a"), ("ab", "a"), ("ab", "b"), ("bc", "b"), ("bc", "c")}


@pytest.mark.slow
def test_after_a_second_cut_too(bundles: dict[str, Path], tmp_path: Path) -> None:
    """The power comes back, and is cut again while the application opens its model."""
    checked = 0
    for number, cut in enumerate(cuts_of(bundles, tmp_path / "life")):
        root = tmp_path / f"{number}"
        root.mkdir()
        restore(cut.tree, root)
        disk = DarkeningDisk(root)
        try:
            ModelStore(root / "store", files=disk).classifier(backend=ENGINE).close()
        except StoreError:
            assert " " in cut.allowed
        disk.note()
        trees = {key_of(tree): tree for moment in disk.moments for tree in moment}
        for tree in trees.values():
            again = tmp_path / "again"
            again.mkdir()
            restore(tree, again)
            works(again, cut.next)
            shutil.rmtree(again)
            checked += 1
        shutil.rmtree(root)
    assert checked > 300


@pytest.mark.parametrize("forgets", ["sync", "sync_folder"])
def test_the_test_finds_a_store_that_does_not_sync(
    bundles: dict[str, Path], tmp_path: Path, forgets: str
) -> None:
    """The planted fault: the same store on a disk that forgets to sync."""
    for number, cut in enumerate(cuts_of(bundles, tmp_path / "life", forgets)):
        root = tmp_path / f"{number}"
        root.mkdir()
        restore(cut.tree, root)
        try:
            works(root, cut.allowed)
        except (AssertionError, StoreError):
            return
        shutil.rmtree(root)
    pytest.fail(f"every model survived without {forgets}")


CHILD = """
import os, random, sys, warnings
sys.path.insert(0, sys.argv[1])
from power_cuts import HastyDisk, PickyEngine
from smidgen.runtime.store import ModelStore

warnings.simplefilter("ignore")
engine = PickyEngine(model_format="tflite")
for line in sys.stdin:  # a seed: a life in a child process, which will be killed
    child = os.fork()
    if child == 0:
        chance = random.Random(int(line))
        store = ModelStore(sys.argv[2], files=HastyDisk())
        steps = 0
        said_after = chance.randrange(4)
        while True:
            if steps == said_after:
                print(os.getpid(), flush=True)
            store.install(chance.choice(sys.argv[3:]), backend=engine)
            if chance.random() < 0.7:
                store.classifier(backend=engine).close()
            steps += 1
    _, status = os.waitpid(child, 0)
    print(status, flush=True)
"""


def kill_at_random(bundles: dict[str, Path], tmp_path: Path, times: int) -> set[str]:
    """Kill -9 a process that updates a store all the time, ``times`` times; the models found."""
    root = tmp_path / "killed"
    ModelStore(root / "store", files=HastyDisk()).install(bundles["a"], backend=LENIENT)
    found, chance = set(), random.Random(7)
    arguments = [str(Path(__file__).parent), str(root / "store"), *map(str, bundles.values())]
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        for number in range(times):
            print(number, file=parent.stdin, flush=True)
            child = int(parent.stdout.readline())
            select.select([], [], [], chance.uniform(0, 0.02))
            os.kill(child, signal.SIGKILL)
            assert int(parent.stdout.readline()) == signal.SIGKILL  # it ended of nothing else
            found.add(works(root, "abcde", LENIENT))
        parent.stdin.close()
    goes_on(root, bundles)
    return found


def test_a_killed_process_leaves_a_working_model(bundles: dict[str, Path], tmp_path: Path) -> None:
    assert kill_at_random(bundles, tmp_path, 20)


@pytest.mark.slow
def test_a_process_killed_often_leaves_a_working_model(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    assert len(kill_at_random(bundles, tmp_path, 150)) >= 3
