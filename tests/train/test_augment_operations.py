"""What each alteration does to pixels, in numbers; the reference is numpy or Pillow."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from smidgen.train.augment import blur, erasing, geometry, jpeg, noise, randaugment, tone
from smidgen.train.augment.policies import PIXEL_ROUNDS

PIXEL = {name: one for part in PIXEL_ROUNDS for name, one in part.items()}
FIXED = ("median blur", "identity", "auto contrast", "equalize", "solarize", "posterize")


def photos(count: int = 6, side: int = 64) -> np.ndarray:
    """``(count, side, side, 3) float32`` whole numbers: soft colours, hard edges, some grain."""
    random = np.random.default_rng(7)
    made = []
    for _ in range(count):
        cells = Image.fromarray(random.integers(30, 225, (5, 5, 3), dtype=np.uint8))
        soft = np.asarray(cells.resize((side, side), Image.Resampling.BICUBIC), np.float64)
        top, left = random.integers(4, side // 2, 2)
        soft[top : top + side // 4, left : left + side // 3] = random.integers(0, 255, 3)
        made.append(np.clip(soft + random.normal(0, 3, soft.shape), 0, 255).round())
    return np.stack(made).astype(np.float32)


def altered(operation: Any, pixels: np.ndarray, seed: int = 1) -> np.ndarray:
    result: np.ndarray = keras.ops.convert_to_numpy(
        operation(keras.ops.convert_to_tensor(pixels), keras.random.SeedGenerator(seed))
    )
    return result


def flat(value: float, side: int = 64, count: int = 4) -> np.ndarray:
    return np.full((count, side, side, 3), value, np.float32)


def dot(side: int = 15) -> np.ndarray:
    pixels = np.zeros((4, side, side, 3), np.float32)
    pixels[:, side // 2, side // 2] = 100.0
    return pixels


# name: the mean absolute change of the photos, at least and at most, in grey levels.
CHANGES: Mapping[str, tuple[float, float]] = {
    "rotate 2°": (0.5, 8), "brightness +": (4, 35), "brightness ×": (3, 45),
    "hue, saturation": (2, 30), "gamma": (1, 45), "sigmoid": (8, 70), "log": (4, 60),
    "linear contrast": (1, 30), "frequency noise": (5, 45), "Gaussian blur": (0.3, 8),
    "average blur": (0.3, 10), "motion blur": (0.3, 10), "median blur": (0.3, 8),
    "Gaussian noise": (1.5, 12), "Laplace noise": (1, 12), "Poisson noise": (2, 20),
    "dropout": (0.5, 8), "coarse dropout": (1, 16), "salt": (0.2, 5), "pepper": (0.2, 5),
    "JPEG 60-80": (0.8, 6),
}  # fmt: skip


def test_the_table_of_changes_names_every_pixel_operation() -> None:
    assert set(CHANGES) == set(PIXEL)
    assert len(PIXEL) == 21


@pytest.mark.parametrize(
    ("name", "operation"),
    [
        *PIXEL.items(),
        *randaugment.operations(5.0).items(),
        ("colour jitter", tone.ColourJitter()),
        ("erase", erasing.Erase()),
    ],
)
def test_shape_range_and_chance(name: str, operation: Any) -> None:
    pixels = np.repeat(photos(3), 2, axis=0)
    once, again = altered(operation, pixels), altered(operation, pixels)
    assert (once.shape, once.dtype) == (pixels.shape, np.float32)
    assert np.isfinite(once).all()
    assert once.min() >= 0
    assert once.max() <= 255.001
    np.testing.assert_array_equal(once, again)
    if name in CHANGES:
        low, high = CHANGES[name]
        change = np.abs(once - pixels).mean()
        assert low < change < high
    if name in FIXED:
        np.testing.assert_array_equal(once[::2], once[1::2])
        return
    assert np.abs(altered(operation, pixels, seed=2) - once).max() > 1
    # Both copies of an image are drawn for by themselves: of three, one pair differs at least.
    assert np.abs(once[::2] - once[1::2]).max() > 1


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (tone.AddBrightness((20, 20)), 120.0),
        (tone.MultiplyBrightness((1.5, 1.5)), 150.0),
        (tone.GammaContrast((2, 2)), 255 * (100 / 255) ** 2),
        (tone.SigmoidContrast((8, 8), (0.5, 0.5)), 255 / (1 + np.exp(8 * (0.5 - 100 / 255)))),
        (tone.LogContrast((1, 1)), 255 * np.log2(1 + 100 / 255)),
        (tone.LinearContrast((0.5, 0.5)), 113.75),
        (randaugment.Solarize(90.0), 155.0),
        (randaugment.Posterize(3), 96.0),
    ],
)
def test_tones_follow_their_formulas(operation: Any, expected: float) -> None:
    np.testing.assert_allclose(altered(operation, flat(100.0)), expected, atol=0.01)


def test_hue_keeps_brightness_and_grey() -> None:
    pixels = 100.0 + 0.2 * photos()
    turned = altered(tone.HueSaturation(), pixels)
    np.testing.assert_allclose(turned @ tone.LUMA, pixels @ np.float32(tone.LUMA), atol=0.3)
    np.testing.assert_allclose(altered(tone.HueSaturation(), flat(90.0)), 90.0, atol=0.01)
    half = altered(tone.HueSaturation((0, 0), (0, 0)), pixels)
    assert np.ptp(half, axis=-1).max() < 0.5 < np.ptp(turned, axis=-1).max()
    opposite = altered(tone.HueSaturation((180, 180), (1, 1)), pixels)
    gray = (pixels @ np.float32(tone.LUMA))[..., None]
    np.testing.assert_allclose(opposite - gray, gray - pixels, atol=0.5)


def test_colour_jitter_moves_mean_contrast_and_saturation_within_its_bounds() -> None:
    pixels = 100.0 + 0.2 * photos(24, 32)
    for jitter, measure in (
        (tone.ColourJitter(0.15, 0, 0), lambda x: x.mean(axis=(1, 2, 3)) / 255),
        (tone.ColourJitter(0, 0.2, 0), lambda x: np.log(np.std(x @ tone.LUMA, axis=(1, 2)))),
        (tone.ColourJitter(0, 0, 0.2), lambda x: np.log(np.ptp(x, axis=3).mean(axis=(1, 2)))),
    ):
        moved = measure(altered(jitter, pixels)) - measure(pixels)
        assert 0.08 < np.abs(moved).max() < 0.225
        assert moved.min() < 0 < moved.max()


def test_median_is_the_median_of_nine() -> None:
    pixels = photos(2, 32)
    padded = np.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="symmetric")
    windows = [padded[:, y : y + 32, x : x + 32] for y in range(3) for x in range(3)]
    result = altered(blur.median_blur, pixels)
    np.testing.assert_array_equal(result, np.median(windows, axis=0))
    assert np.abs(result - np.mean(windows, axis=0)).max() > 5  # a mean would be found out


def spread(response: np.ndarray) -> np.ndarray:
    """The two second moments of each image's light, along its axes, in square pixels."""
    side = response.shape[1]
    y, x = np.mgrid[:side, :side] - side // 2
    light = response[..., 0] / response[..., 0].sum(axis=(1, 2), keepdims=True)
    parts = [(light * part).sum(axis=(1, 2)) for part in (x * x, x * y, x * y, y * y)]
    return np.linalg.eigvalsh(np.stack(parts, axis=1).reshape(-1, 2, 2))


def test_blurs_spread_a_dot_as_they_say() -> None:
    for sigma, right in ((1.0, True), (0.7, False)):
        response = altered(blur.GaussianBlur((sigma, sigma)), dot())
        np.testing.assert_allclose(response.sum(axis=(1, 2)), 100.0, rtol=1e-5)
        assert bool(np.abs(spread(response) - 1.0).max() < 0.02) == right
    box = altered(blur.AverageBlur((3, 3)), dot())
    np.testing.assert_allclose(box[:, 6:9, 6:9], 100 / 9, rtol=1e-5)
    assert np.count_nonzero(box) == 4 * 9 * 3
    streak = altered(blur.MotionBlur((4.5, 4.5)), dot())
    np.testing.assert_allclose(streak.sum(axis=(1, 2)), 100.0, rtol=1e-5)
    small, large = spread(streak).T
    assert (large / small).min() > 4
    assert np.abs(streak[0] - streak[1]).max() > 3  # another direction


def test_blurs_take_fine_detail_and_leave_the_mean() -> None:
    pixels = photos()
    for operation in (blur.GaussianBlur((1, 1)), blur.AverageBlur((3, 3)), blur.MotionBlur()):
        result = altered(operation, pixels)
        assert np.abs(result.mean(axis=(1, 2)) - pixels.mean(axis=(1, 2))).max() < 1.0
        detail = [np.square(np.diff(x, 2, axis=1)).mean() for x in (result, pixels)]
        assert detail[0] < 0.5 * detail[1]
    np.testing.assert_allclose(altered(blur.GaussianBlur(), flat(255.0)), 255.0, atol=0.01)


def test_noise_has_the_stated_distribution() -> None:
    grey = flat(120.0, side=128)
    gauss = altered(noise.GaussianNoise((10, 10)), grey) - grey
    laplace = altered(noise.LaplaceNoise((10, 10)), grey) - grey
    for one, kurtosis in ((gauss, 3.0), (laplace, 6.0)):
        assert abs(one.mean()) < 0.15
        assert abs(one.std() - 10.0) < 0.15
        assert abs((one**4).mean() / (one**2).mean() ** 2 - kurtosis) < 0.6


@pytest.mark.parametrize("photons", [5.0, 20.0, 100.0])
def test_shot_noise_is_a_poisson_count(photons: float) -> None:
    """At a fifth of the full exposure: the mean within 1 %, the variance within one photon."""
    full = 5 * photons
    counts = altered(noise.PoissonNoise((full, full)), flat(51.0, side=128)) * (full / 255)
    np.testing.assert_allclose(counts, counts.round(), atol=1e-3)
    assert abs(counts.mean() / photons - 1) < 0.01
    assert abs(counts.var() - photons) < 1.0 + 0.01 * photons
    normal = altered(noise.GaussianNoise((10, 10)), flat(51.0, side=128)) * (full / 255)
    assert abs(normal.var() - photons) > 1.0 + 0.01 * photons
    bright = altered(noise.PoissonNoise(), flat(200.0)).std()
    dark = altered(noise.PoissonNoise(), flat(20.0)).std()
    assert 2.5 < bright / dark < 4  # the root of ten


def test_lost_pixels_come_in_the_stated_share() -> None:
    grey = flat(100.0, side=128)
    values = altered(noise.Dropout((0.1, 0.1)), grey)
    assert abs((values == 0).mean() - 0.1) < 0.005
    assert 0.25 < (values == 0).any(axis=3).mean() < 0.29  # channels by themselves: 1 - 0.9^3
    salt = altered(noise.Specks(255.0, (0.1, 0.1)), grey)
    assert abs((salt == 255).mean() - 0.1) < 0.01
    assert (salt == salt[..., :1]).all()  # whole pixels
    cells = altered(noise.CoarseDropout((0.2, 0.2)), grey)
    assert abs((cells == 0).mean() - 0.2) < 0.05
    blocks = cells.reshape(4, 16, 8, 16, 8, 3)
    assert (blocks == blocks[:, :, :1, :, :1]).all()


def test_the_noise_mask_is_smooth_where_high_frequencies_are_weak() -> None:
    def roughness(exponent: float) -> float:
        blend = noise.FrequencyNoiseBlend(exponents=(exponent, exponent))
        masks = altered(blend.masks, flat(0.0))
        assert masks.shape == (4, 64, 64, 1)
        assert 0 <= masks.min() < 0.15
        assert 0.85 < masks.max() <= 1
        return float(np.abs(np.diff(masks, axis=1)).mean() / masks.std())

    assert roughness(-4.0) < 0.5 * roughness(0.0)


def pillow_jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(
        stream, "JPEG", quality=quality, subsampling="4:2:0"
    )
    return np.asarray(Image.open(stream), np.float32)


@pytest.mark.parametrize(("quality", "side"), [(60, 64), (70, 64), (80, 64), (75, 50), (30, 64)])
def test_jpeg_is_pillows_jpeg(quality: int, side: int) -> None:
    """Within 0.6 grey levels in the mean; ten points of quality more are found out."""
    pixels = photos(4, side)
    result = altered(jpeg.JpegCompression((quality, quality)), pixels)
    same = np.stack([pillow_jpeg(one, quality) for one in pixels])
    other = np.stack([pillow_jpeg(one, quality + 10) for one in pixels])
    assert np.abs(result - same).mean() < 0.6
    assert np.abs(result - other).mean() > 2.5
    assert np.abs(pixels - same).mean() > 3.5


def test_jpeg_draws_whole_qualities_up_to_the_last() -> None:
    pixels = np.repeat(photos(1), 64, axis=0)
    result = altered(jpeg.JpegCompression((60, 63)), pixels)
    assert len({one.tobytes() for one in result}) == 4


def test_small_turns_stay_small() -> None:
    """A dot 20 pixels from the centre moves by at most 20 tan 2°, and edges are filled."""
    pixels = np.zeros((32, 65, 65, 3), np.float32)
    pixels[:, 31:34, 51:54] = 200.0
    turned = altered(geometry.Rotate(2.0), pixels)[..., 0]
    down = (turned * np.arange(65)[:, None]).sum(axis=(1, 2)) / turned.sum(axis=(1, 2)) - 32
    assert np.abs(down).max() < 20 * np.tan(np.radians(2.0)) + 0.02
    assert down.min() < -0.35
    assert down.max() > 0.35
    np.testing.assert_allclose(altered(geometry.Rotate(2.0), flat(255.0)), 255.0, atol=0.01)


def test_a_warp_moves_mirrors_and_cuts_exactly() -> None:
    pixels = photos(2, 48)

    def warped(matrix: Any, shift: Any, side: int) -> np.ndarray:
        return np.asarray(
            keras.ops.convert_to_numpy(
                geometry.warp(keras.ops.convert_to_tensor(pixels), matrix, shift, side)
            )
        )

    same = (1.0, 0.0, 0.0, 1.0)
    np.testing.assert_allclose(warped(same, (0.0, 0.0), 40), pixels[:, 4:44, 4:44], atol=0.01)
    moved = warped(same, (3.0, -2.0), 40)
    np.testing.assert_allclose(moved, pixels[:, 2:42, 7:47], atol=0.01)
    mirrored = warped((-1.0, 0.0, 0.0, 1.0), (0.0, 0.0), 48)
    np.testing.assert_allclose(mirrored, pixels[:, :, ::-1], atol=0.01)
    quarter = warped((0.0, -1.0, 1.0, 0.0), (0.0, 0.0), 48)
    np.testing.assert_allclose(quarter, np.rot90(pixels, -1, axes=(1, 2))[:, ::-1, ::-1], atol=0.05)


def test_randaugments_operations_are_pillows() -> None:
    """Both signs are drawn; each image is one of Pillow's two answers, to 1.5 levels."""
    pixels = photos(8)
    made = {name: altered(one, pixels) for name, one in randaugment.operations(5.0).items()}
    enhancers: Mapping[str, Any] = {
        "color": ImageEnhance.Color,
        "contrast": ImageEnhance.Contrast,
        "brightness": ImageEnhance.Brightness,
        "sharpness": ImageEnhance.Sharpness,
    }
    for index, one in enumerate(pixels):
        picture = Image.fromarray(one.astype(np.uint8))
        for name, enhancer in enhancers.items():
            gaps = [
                np.abs(made[name][index] - np.asarray(enhancer(picture).enhance(factor)))[
                    1:-1, 1:-1
                ]
                for factor in (0.55, 1.45)
            ]
            least, other = sorted(gap.mean() for gap in gaps)
            assert least < 1.5 < 2 * other
        equal = np.asarray(ImageOps.equalize(picture), np.float32)
        np.testing.assert_array_equal(made["equalize"][index], equal)
        stretched = np.asarray(ImageOps.autocontrast(picture), np.float32)
        assert np.abs(made["auto contrast"][index] - stretched).max() <= 1.5
        solar = np.asarray(ImageOps.solarize(picture, 128), np.float32)
        np.testing.assert_array_equal(made["solarize"][index], solar)
        few = np.asarray(ImageOps.posterize(picture, 6), np.float32)
        np.testing.assert_array_equal(made["posterize"][index], few)
    assert np.abs(made["equalize"] - pixels).mean() > 10
    smooth = np.asarray(Image.fromarray(pixels[0].astype(np.uint8)).filter(ImageFilter.SMOOTH))
    assert np.abs(made["sharpness"][0] - pixels[0]).mean() > 0.3
    assert np.abs(made["sharpness"][0] - smooth).mean() > 0.3


def test_an_image_of_one_value_is_left_by_auto_contrast_and_equalize() -> None:
    for operation in (randaugment.auto_contrast, randaugment.equalize):
        np.testing.assert_array_equal(altered(operation, flat(77.0)), flat(77.0))


def test_erasing_fills_one_rectangle_with_noise() -> None:
    grey = flat(300.0, count=64)  # a value that the noise cannot have
    erase = erasing.Erase()
    result = altered(erase, grey)
    for image in result:
        rows, columns = np.nonzero((image < 256).all(axis=2))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert len(rows) == height * width  # it is a whole rectangle
        assert 0.012 < len(rows) / 64**2 < 0.27
        assert 0.25 < height / width < 4
    inside = result[result < 256]
    assert abs(inside.mean() - 127.5) < 3
    assert abs(inside.std() - 255 / np.sqrt(12)) < 3
