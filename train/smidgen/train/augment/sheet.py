"""``augmentations.png``: what the network sees of some training images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from smidgen.runtime.files import replacing
from smidgen.train.augment.policies import PIXEL_ROUNDS, Augmentation

_TILE_INCHES = 1.5
_DPI = 110
_COLUMNS = 11


def draw_augmentations(
    pixels: np.ndarray, augmentation: Augmentation, path: Path, variants: int = 7
) -> None:
    """Draw each image as it is, then as the policy alters it in ``variants`` training steps.

    The random state of ``augmentation`` is the same afterwards as before. A mixed image carries the
    share of its target that is still its own.

    Args:
        pixels: ``(n, S + margin, S + margin, 3) uint8``, n >= 1: one row each.
        augmentation: the policy.
        path: the PNG file.
        variants: columns beside the first.

    Raises:
        OutputError: the file cannot be written.
    """
    layers = [layer for layer in (*augmentation.layers, augmentation.mix) if layer is not None]
    kept = [(v, ops.convert_to_numpy(v.value)) for layer in layers for v in layer.variables]
    try:
        columns = [_varied(pixels, augmentation) for _ in range(variants)]
    finally:
        for variable, value in kept:
            variable.assign(value)
    shown = [[pixels[row], *(column[row] for column, _ in columns)] for row in range(len(pixels))]
    notes = [["", *(_note(share[row]) for _, share in columns)] for row in range(len(pixels))]
    title = f"augmentation = {augmentation.title}: the image, then {variants} draws"
    _draw(shown, path, title, notes=notes)


def draw_pixel_operations(pixels: np.ndarray, path: Path, seed: int = 0) -> None:
    """Draw what each operation of the policy ``pixel`` makes of ``(n, S, S, 3) uint8`` images."""
    operations = {name: one for part in PIXEL_ROUNDS for name, one in part.items()}
    seeds = keras.random.SeedGenerator(seed)
    floats = ops.convert_to_tensor(pixels.astype(np.float32))
    columns = [("as it is", pixels)]
    columns += [(name, _bytes(one(floats, seeds))) for name, one in operations.items()]
    shown: list[list[np.ndarray]] = []
    heads: list[list[str]] = []
    for first in range(0, len(columns), _COLUMNS):
        band = columns[first : first + _COLUMNS]
        shown += [[column[row] for _, column in band] for row in range(len(pixels))]
        heads += [[name for name, _ in band], *([""] * len(band) for _ in pixels[1:])]
    _draw(shown, path, "augmentation = pixel, by operation", heads=heads)


def _varied(pixels: np.ndarray, augmentation: Augmentation) -> tuple[np.ndarray, np.ndarray]:
    """One training step's ``(n, S, S, 3) uint8`` and each image's share of its own target."""
    x: Any = ops.convert_to_tensor(pixels.astype(np.float32))
    for layer in augmentation.layers:
        x = layer(x, training=True)
    shares = np.ones(len(pixels))
    if augmentation.mix is not None:
        targets = ops.eye(len(pixels), dtype="float32")
        x, targets = augmentation.mix((x, targets), training=True)
        shares = np.diagonal(ops.convert_to_numpy(targets))
    return _bytes(x), shares


def _bytes(x: Any) -> np.ndarray:
    values = np.rint(ops.convert_to_numpy(x))
    if values.min() < 0 or values.max() > 255:
        raise ValueError(f"pixels of {values.min()} to {values.max()}: an operation left 0..255")
    pixels: np.ndarray = values.astype(np.uint8)
    return pixels


def _note(share: float) -> str:
    return "" if share > 0.995 else f"{100 * share:.0f} % its own"


def _draw(
    rows: Sequence[Sequence[np.ndarray]],
    path: Path,
    title: str,
    *,
    heads: Sequence[Sequence[str]] = (),
    notes: Sequence[Sequence[str]] = (),
) -> None:
    """A grid of pictures under a title; ``heads`` over the pictures, ``notes`` on them."""
    across, down = len(rows[0]), len(rows)
    figure = Figure(
        figsize=(_TILE_INCHES * across, _TILE_INCHES * down + 0.5),
        layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02),
    )
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    grid = figure.subplots(down, across, squeeze=False)
    for row, pictures in enumerate(rows):
        for column, picture in enumerate(pictures):
            axes = grid[row][column]
            axes.imshow(picture, interpolation="lanczos")
            axes.set_axis_off()
            if heads and heads[row][column]:
                axes.set_title(heads[row][column], fontsize=8, pad=3)
            if notes and notes[row][column]:
                axes.text(
                    0.03,
                    0.04,
                    notes[row][column],
                    transform=axes.transAxes,
                    fontsize=6.5,
                    color="white",
                    bbox={"facecolor": "black", "pad": 1.5, "lw": 0},
                )
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=_DPI, metadata={"Software": None})
