"""Policies as a whole: chance, order, targets, both backends, the picture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from smidgen.train.augment.choice import RandomOperations, Round
from smidgen.train.augment.geometry import RandomView
from smidgen.train.augment.margins import margin_of
from smidgen.train.augment.mixing import MixUpOrCutMix
from smidgen.train.augment.policies import Augmentation, policy
from smidgen.train.augment.sheet import draw_augmentations, draw_pixel_operations
from smidgen.train.recipe import ScheduleRecipe

REPO = Path(__file__).resolve().parents[2]
NAMES = ("none", "pixel", "standard", "strong")


def photos(count: int, side: int) -> np.ndarray:
    """``(count, side, side, 3) float32``: soft random colours, unlike their mirror images."""
    random = np.random.default_rng(3)
    cells = random.integers(0, 255, (count, 6, 6, 3), dtype=np.uint8)
    soft = [
        np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC))
        for one in cells
    ]
    return np.stack(soft).astype(np.float32)


def made(name: str, size: int = 48, batch: int = 8, flip: bool = False, seed: int = 0) -> Any:
    schedule = ScheduleRecipe(augmentation=name, horizontal_flip=flip, seed=seed)  # type: ignore[arg-type]
    return policy(schedule, size, batch)


def step(augmentation: Augmentation, pixels: np.ndarray, training: bool = True) -> np.ndarray:
    x = keras.ops.convert_to_tensor(pixels)
    for layer in augmentation.layers:
        x = layer(x, training=training)
    result: np.ndarray = keras.ops.convert_to_numpy(x)
    return result


def likeness(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation of each image of ``a`` with the same of ``b``."""
    a, b = (x.reshape(len(x), -1) - x.mean(axis=(1, 2, 3))[:, None] for x in (a, b))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / norms)


def test_margins_need_no_keras() -> None:
    program = textwrap.dedent("""
        import sys
        from smidgen.train.augment.margins import margin_of
        from smidgen.train.recipe import ScheduleRecipe
        print([margin_of(ScheduleRecipe(augmentation=name), size)
               for name in ("none", "pixel", "standard", "strong") for size in (32, 128, 224)])
        heavy = ("keras", "tensorflow", "jax", "matplotlib")
        print([name for name in heavy if name in sys.modules])
    """)
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    margins, loaded = (json.loads(line.replace("'", '"')) for line in shown.stdout.splitlines())
    assert margins == [0, 0, 0, 0, 0, 0, 4, 16, 28, 4, 16, 28]
    assert loaded == []
    for size in range(32, 513):
        assert margin_of(ScheduleRecipe(), size) % 2 == 0
        assert margin_of(ScheduleRecipe(random_crop=0.7), size) % 2 == 0
    assert margin_of(ScheduleRecipe(augmentation="pixel", random_crop=0.6), 192) == 48


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_gives_the_input_size_and_range(name: str) -> None:
    augmentation = made(name, flip=True)
    pixels = photos(8, 48 + augmentation.margin)
    result = step(augmentation, pixels)
    assert (result.shape, result.dtype) == ((8, 48, 48, 3), np.float32)
    assert result.min() >= 0
    assert result.max() <= 255.001
    outside = step(augmentation, pixels, training=False)
    edge = augmentation.margin // 2
    np.testing.assert_array_equal(outside, pixels[:, edge : edge + 48, edge : edge + 48])
    held_out = photos(8, 48)
    np.testing.assert_array_equal(step(augmentation, held_out, training=False), held_out)


@pytest.mark.parametrize("name", NAMES)
def test_chance_is_seeded_goes_on_and_can_be_resumed(name: str) -> None:
    first, second, other = (made(name, flip=True, seed=seed) for seed in (5, 5, 6))
    pixels = np.repeat(photos(1, 48 + first.margin), 8, axis=0)
    one, two = step(first, pixels), step(first, pixels)
    np.testing.assert_array_equal(one, step(second, pixels))
    assert np.abs(one - two).max() > 5
    assert np.abs(one - step(other, pixels)).max() > 5
    distinct = len({image.tobytes() for image in one})
    assert distinct == 2 if name == "none" else distinct >= 6  # eight copies of one image
    state = [keras.ops.convert_to_numpy(v) for layer in second.layers for v in layer.variables]
    expected = step(second, pixels)
    third = made(name, flip=True, seed=5)
    for variable, value in zip(
        [v for layer in third.layers for v in layer.variables], state, strict=True
    ):
        variable.assign(value)
    np.testing.assert_array_equal(step(third, pixels), expected)
    np.testing.assert_array_equal(two, expected)


def test_none_without_flips_is_nothing() -> None:
    assert made("none").layers == ()
    assert [made(name).mix is not None for name in NAMES] == [False, False, False, True]


def test_pixel_never_flips_or_turns_far() -> None:
    pixels = photos(64, 48)
    augmentation = made("pixel", batch=64)
    for _ in range(3):
        result = step(augmentation, pixels)
        own = likeness(result, pixels)
        assert own.min() > 0.6
        assert np.median(own) > 0.95
        for turned in (pixels[:, :, ::-1], pixels[:, ::-1], np.rot90(pixels, 1, (1, 2))):
            assert (likeness(result, turned) < own - 0.1).all()
    # Planted: a policy that does flip is found out.
    flipped = step(made("none", batch=64, flip=True), pixels)
    assert (likeness(flipped, pixels[:, :, ::-1]) > likeness(flipped, pixels)).mean() > 0.3


def test_half_of_the_images_are_mirrored_where_flips_are_asked_for() -> None:
    for name in ("none", "pixel", "standard", "strong"):
        augmentation = made(name, batch=128, flip=True)
        edge = augmentation.margin // 2
        pixels = photos(128, 48 + augmentation.margin)
        result = step(augmentation, pixels)
        centre = pixels[:, edge : edge + 48, edge : edge + 48]
        mirrored = likeness(result, centre[:, :, ::-1]) > likeness(result, centre)
        assert 0.35 < mirrored.mean() < 0.65
        if name in ("standard", "strong"):
            plain = step(made(name, batch=128), pixels)
            mirrored = likeness(plain, centre[:, :, ::-1]) > likeness(plain, centre)
            assert mirrored.mean() < 0.15


def test_a_view_moves_and_zooms_within_its_bounds() -> None:
    """Pictures whose red and green say where they are: the view is read from its pixels."""
    side, whole, count = 64, 72, 256
    x = np.broadcast_to(np.linspace(0, 1, whole, dtype=np.float32), (count, whole, whole))
    pixels = np.stack([x, x.transpose(0, 2, 1), 0 * x], axis=3)
    view = RandomView(
        side, 8, coverage=(0.5, 0.7), shift=0.1, degrees=10.0, flip=True, seed=1, name="view"
    )
    seen = keras.ops.convert_to_numpy(view(keras.ops.convert_to_tensor(pixels), training=True))
    centre = seen[:, 31:33, 31:33, :2].mean(axis=(1, 2)) - 0.5
    along = (seen[:, 32, -1, :2] - seen[:, 32, 0, :2]) * (64 / 63) * (71 / 72)
    coverage, turn = np.hypot(*along.T), np.degrees(np.arctan2(along[:, 1], np.abs(along[:, 0])))
    for values, low, high in ((centre, -0.1, 0.1), (coverage, 0.5, 0.7), (turn, -10.0, 10.0)):
        slack = 0.05 * (high - low)
        assert low - 0.02 * (high - low) < values.min() < low + slack
        assert high - slack < values.max() < high + 0.02 * (high - low)
    assert 0.4 < (along[:, 0] < 0).mean() < 0.6


@pytest.mark.parametrize("name", ["none", "pixel", "standard", "strong"])
def test_random_crops_come_from_anywhere_in_the_image(name: str) -> None:
    """Instead of the policy's own: red and green say where each view begins and ends."""
    schedule = ScheduleRecipe(augmentation=name, random_crop=0.4, horizontal_flip=False)  # type: ignore[arg-type]
    augmentation = policy(schedule, 56, 256)
    whole = 56 + augmentation.margin
    x = np.broadcast_to(np.linspace(0, 1, whole, dtype=np.float32), (256, whole, whole))
    pixels = np.stack([x, x.transpose(0, 2, 1), 0 * x], axis=3)
    view = augmentation.layers[0]
    assert isinstance(view, RandomView)
    view.degrees = 0.0
    seen = keras.ops.convert_to_numpy(view(keras.ops.convert_to_tensor(pixels), training=True))
    begin, end = seen[:, 0, 0, :2], seen[:, -1, -1, :2]
    assert begin.min() == pytest.approx(0, abs=0.02)
    assert end.max() == pytest.approx(1, abs=0.02)
    sides = end - begin
    np.testing.assert_allclose(sides[:, 0], sides[:, 1], atol=0.02)  # a square
    assert 0.38 < sides.min() < 0.43
    assert 0.95 < sides.max() <= 1.0


def counted(amount: float) -> Any:
    def add(pixels: Any, seeds: Any) -> Any:  # noqa: ARG001
        return pixels + amount

    return add


def test_each_image_gets_one_operation_and_stays_in_its_place() -> None:
    operations = {str(k): counted(k) for k in (1, 2, 3)}
    layer = RandomOperations([Round(operations, unchanged=0.25)] * 2, 16, seed=1, name="x")
    pixels = np.zeros((16, 4, 4, 3), np.float32) + 10 * np.arange(16.0)[:, None, None, None]
    seen = np.zeros((16, 7))
    for _ in range(100):
        result = keras.ops.convert_to_numpy(layer(pixels, training=True))
        assert np.ptp(result, axis=(1, 2, 3)).max() == 0
        amounts = (result - pixels)[:, 0, 0, 0].astype(int)
        assert amounts.sum() == 2 * 4 * (1 + 2 + 3)  # each operation has a quarter of each round
        seen[np.arange(16), amounts] += 1
    chances = np.convolve([0.25] * 4, [0.25] * 4)
    np.testing.assert_allclose(seen.mean(axis=0) / 100, chances, atol=0.05)
    np.testing.assert_allclose(seen / 100, np.tile(chances, (16, 1)), atol=0.2)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_batches_smaller_than_the_operations_get_every_operation_in_time(count: int) -> None:
    operations = {str(k): counted(k) for k in range(7)}
    layer = RandomOperations([Round(operations)], count, seed=1, name="x")
    pixels = np.zeros((count, 4, 4, 3), np.float32)
    seen = [
        set(keras.ops.convert_to_numpy(layer(pixels, training=True))[:, 0, 0, 0].astype(int))
        for _ in range(60)
    ]
    assert set().union(*seen) == set(range(7))


@pytest.mark.parametrize(("operations", "unchanged"), [({}, 0.0), ({"a": counted(1)}, 1.0)])
def test_a_round_of_nothing_is_refused(operations: dict[str, Any], unchanged: float) -> None:
    with pytest.raises(ValueError, match="expected at least one, and 0 to less than 1"):
        Round(operations, unchanged)


def mixed(layer: MixUpOrCutMix, count: int, training: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Image ``i`` is 255 in channel ``i % 3``, its target is class ``i % 3``."""
    targets = np.eye(3, dtype=np.float32)[np.arange(count) % 3]
    pixels = np.broadcast_to(255 * targets[:, None, None], (count, 16, 16, 3)).copy()
    x, y = layer((pixels, targets), training=training)
    return keras.ops.convert_to_numpy(x), keras.ops.convert_to_numpy(y)


@pytest.mark.parametrize("cut_share", [0.0, 0.5, 1.0])
def test_targets_are_mixed_in_proportion_to_the_pixels(cut_share: float) -> None:
    layer = MixUpOrCutMix(300, cut_share=cut_share, seed=1, name="mix")
    pixels, targets = mixed(layer, 300)
    np.testing.assert_allclose(targets.sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(pixels.mean(axis=(1, 2)) / 255, targets, atol=1e-5)
    own = targets[np.arange(300), np.arange(300) % 3]
    np.testing.assert_allclose(
        own + targets[np.arange(300), (np.arange(300) - 1) % 3], 1, atol=1e-5
    )
    is_cut = np.isin(pixels, (0, 255)).all(axis=(1, 2, 3)) & (np.ptp(pixels, axis=(1, 2, 3)) > 0)
    if cut_share == 1:
        assert is_cut.all()
        assert abs(own.mean() - 0.5) < 0.06  # the area is uniform
        assert abs(own.std() - np.sqrt(1 / 12)) < 0.05
    if cut_share == 0:
        # max(b, 1 - b) of Beta(.2, .2): 1/2 + E|b - 1/2|, by numerical integration .896.
        assert own.min() >= 0.5
        assert abs(own.mean() - 0.896) < 0.03
        assert np.ptp(pixels, axis=(1, 2)).max() < 1e-3
    wrong = 1.0 - targets
    assert np.abs(pixels.mean(axis=(1, 2)) / 255 - wrong).max() > 0.5


def test_nothing_is_mixed_outside_training() -> None:
    layer = MixUpOrCutMix(6, seed=1, name="mix")
    pixels, targets = mixed(layer, 6, training=False)
    np.testing.assert_array_equal(targets, np.eye(3)[np.arange(6) % 3])
    np.testing.assert_array_equal(pixels[:, 0, 0], 255 * targets)


PROGRAM = """
import json, sys
import keras
import numpy as np
from smidgen.train.augment.policies import policy
from smidgen.train.recipe import ScheduleRecipe

size, batch = 48, 24
random = np.random.default_rng(0)
results = {}
for name in ("none", "pixel", "standard", "strong"):
    schedule = ScheduleRecipe(augmentation=name, horizontal_flip=True, batch_size=batch)
    augmentation = policy(schedule, size, batch)
    whole = size + augmentation.margin
    pixels = keras.Input((whole, whole, 3), dtype="uint8")
    targets = keras.Input((3,))
    x = keras.layers.Rescaling(1.0)(pixels)
    for layer in augmentation.layers:
        x = layer(x)
    y = targets
    if augmentation.mix is not None:
        x, y = augmentation.mix((x, y))
    model = keras.Model([pixels, targets], [x, y])
    images = random.integers(0, 256, (batch, whole, whole, 3), dtype=np.uint8)
    labels = np.eye(3, dtype=np.float32)[np.arange(batch) % 3]

    def altered(images, labels):  # two steps of one compiled call
        if keras.config.backend() == "jax":
            import jax

            def call(state, images, labels):
                return model.stateless_call([], state, [images, labels], training=True)

            state = [v.value for v in model.non_trainable_variables]
            compiled = jax.jit(call)
            first, state = compiled(state, images, labels)
            second, _ = compiled(state, images, labels)
            return first, second
        import tensorflow as tf
        shape = tf.TensorSpec((None, whole, whole, 3), tf.uint8)
        call = tf.function(lambda i, l: model([i, l], training=True), input_signature=[
            shape, tf.TensorSpec((None, 3), tf.float32)])
        return call(images, labels), call(images, labels)

    first, second = altered(images, labels)
    first, second = ([np.asarray(part) for part in parts] for parts in (first, second))
    results[name] = {
        "shape": first[0].shape,
        "range": [float(first[0].min()), float(first[0].max())],
        "mean": float(first[0].mean()),
        "step": float(np.abs(first[0] - second[0]).mean()),
        "targets": float(np.abs(first[1].sum(axis=1) - 1).max()),
    }
print(json.dumps([keras.config.backend(), results]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_every_policy_runs_in_a_compiled_step(backend: str) -> None:
    python = (
        sys.executable if backend == "tensorflow" else os.environ.get("SMIDGEN_TEST_JAX_PYTHON")
    )
    if not python:
        pytest.skip("SMIDGEN_TEST_JAX_PYTHON names no interpreter with JAX and without TensorFlow")
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": f"{REPO / 'train'}{os.pathsep}{REPO / 'runtime'}",
    }
    shown = subprocess.run(
        [python, "-c", PROGRAM], capture_output=True, text=True, check=False, env=environment
    )
    assert shown.returncode == 0, shown.stderr
    ran_on, results = json.loads(shown.stdout.splitlines()[-1])
    assert ran_on == backend
    assert set(results) == set(NAMES)
    for name, result in results.items():
        assert result["shape"] == [24, 48, 48, 3]
        assert result["range"][0] >= 0
        assert result["range"][1] <= 255.001
        assert abs(result["mean"] - 127.5) < 12
        assert result["targets"] < 1e-5
        assert result["step"] > (20 if name == "none" else 8)  # white noise, so flips show


@pytest.mark.parametrize("name", NAMES)
def test_the_sheet_shows_what_training_will_see(name: str, tmp_path: Path) -> None:
    augmentation, same = made(name, flip=True), made(name, flip=True)
    pixels = photos(3, 48 + augmentation.margin)
    path = tmp_path / "augmentations.png"
    draw_augmentations(pixels.astype(np.uint8), augmentation, path, variants=2)
    with Image.open(path) as picture:
        assert picture.size[0] == round(3 * 1.5 * 110)
        assert np.asarray(picture.convert("L")).std() > 20
    np.testing.assert_array_equal(step(augmentation, pixels), step(same, pixels))


@pytest.mark.parametrize(("crop", "title"), [(0.6, "pixel, random_crop = 0.6"), (1.0, "pixel")])
def test_the_title_of_the_sheet_names_random_crops(crop: float, title: str) -> None:
    schedule = ScheduleRecipe(augmentation="pixel", horizontal_flip=False, random_crop=crop)
    assert policy(schedule, 32, 2).title == title


def test_the_sheet_of_operations_has_a_column_for_each(tmp_path: Path) -> None:
    draw_pixel_operations(photos(1, 32).astype(np.uint8), tmp_path / "operations.png")
    with Image.open(tmp_path / "operations.png") as picture:
        assert picture.size[0] == round(11 * 1.5 * 110)


def test_a_policy_that_leaves_the_range_is_not_drawn(tmp_path: Path) -> None:
    layer = RandomOperations([Round({"too much": counted(100)})], 2, seed=0, name="x")
    with pytest.raises(ValueError, match=r"left 0\.\.255"):
        draw_augmentations(
            np.full((2, 32, 32, 3), 200, np.uint8), Augmentation("x", 0, (layer,)), tmp_path / "x"
        )
    assert not (tmp_path / "x").exists()
