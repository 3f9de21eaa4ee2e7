"""The loaders that ``loading.py`` compares: ours, and what else a Keras user has on a CPU.

All make the same of a file: its centred square, resized with an antialiased bicubic filter to
``(side, side, 3) uint8`` RGB. One run of a loader goes through all images once.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smidgen.runtime.manifest import Preprocessing
from smidgen.runtime.preprocessing import crop_box
from smidgen.train.data import Example
from smidgen.train.pixels import (
    Batches,
    CacheFolder,
    PixelSource,
    StreamedPixels,
    TrainingDecoder,
    decode_all,
)
from smidgen.train.progress import SilentProgress

BATCH_SIZE = 32
THREADS = 2
"""Of the loaders that are told how many."""


@dataclass(frozen=True)
class Loader:
    """``run`` goes through all images once and returns how many came."""

    name: str
    run: Callable[[], int]


@dataclass(frozen=True)
class Images:
    """What is loaded: image files with their hashes, and the side of the squares in pixels."""

    examples: Sequence[Example]
    side: int

    @property
    def paths(self) -> list[str]:
        """The files."""
        return [example.path for example in self.examples]


FIRST_PASS = "smidgen, first pass"
CACHED = "smidgen, from the cache"
STREAMED = "smidgen, without a cache"


def our_loaders(images: Images, folder: Path) -> list[Loader]:
    """The first pass (which decodes and writes the cache), epochs from it, and without one.

    Args:
        images: what to load.
        folder: for the caches; the caller removes it.
    """
    decoder = TrainingDecoder(Preprocessing(images.side, images.side))
    examples = list(images.examples)

    def first_pass() -> int:
        shutil.rmtree(folder / "first", ignore_errors=True)
        pixels = decode_all(examples, decoder, CacheFolder(folder / "first"), SilentProgress())
        return len(pixels.rows_of(examples))

    def epoch(source: PixelSource) -> int:
        rows = source.rows_of(examples)
        batches = Batches(source, rows, np.zeros(len(rows), np.int64), BATCH_SIZE, seed=0)
        return sum(len(pixels) for _, pixels, _ in batches.epoch(0, 1))

    cached = decode_all(examples, decoder, CacheFolder(folder / "kept"), SilentProgress())
    streamed = StreamedPixels(examples, decoder, SilentProgress())
    return [
        Loader(FIRST_PASS, first_pass),
        Loader(CACHED, lambda: epoch(cached)),
        Loader(STREAMED, lambda: epoch(streamed)),
    ]


def pillow_square(path: str, side: int) -> np.ndarray:
    """``(side, side, 3) uint8``: open, crop and resize as one writes it with Pillow."""
    from PIL import Image

    with Image.open(path) as image:
        rgb = image.convert("RGB")
    box = crop_box(rgb.width, rgb.height, Preprocessing(side, side))
    return np.asarray(rgb.resize((side, side), Image.Resampling.BICUBIC, box))


def pillow_loader(images: Images) -> Loader:
    """Pillow in one thread: the loop that everybody starts with."""
    return Loader(
        "Pillow, 1 thread",
        lambda: sum(len(pillow_square(path, images.side)) > 0 for path in images.paths),
    )


def keras_loader(images: Images) -> Loader:
    """``keras.utils.PyDataset`` with Pillow and 2 threads, as ``fit`` reads it.

    Its batches are taken where ``fit`` takes them, before they become tensors, which is to its
    advantage.
    """
    import keras
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    paths, side = images.paths, images.side

    class Photos(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
        def __len__(self) -> int:
            return math.ceil(len(paths) / BATCH_SIZE)

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            chosen = paths[index * BATCH_SIZE : (index + 1) * BATCH_SIZE]
            pixels = np.stack([pillow_square(path, side) for path in chosen])
            return pixels, np.zeros(len(chosen), np.int64)

    def run() -> int:
        adapter = PyDatasetAdapter(Photos(workers=THREADS, use_multiprocessing=False))
        return sum(len(batch[0]) for batch in adapter.get_numpy_iterator())

    return Loader(f"Keras PyDataset + Pillow, {THREADS} threads", run)


def tensorflow_loader(images: Images) -> Loader:
    """``tf.data``: ``decode_jpeg``, crop, antialiased resize, with as many threads as it likes.

    JPEG files only.
    """
    import tensorflow as tf

    side = images.side

    def square(path: Any) -> Any:
        pixels = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        shape = tf.shape(pixels)
        edge = tf.minimum(shape[0], shape[1])
        top, left = (shape[0] - edge) // 2, (shape[1] - edge) // 2
        pixels = tf.image.crop_to_bounding_box(pixels, top, left, edge, edge)
        pixels = tf.image.resize(pixels, (side, side), "bicubic", antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(pixels), 0.0, 255.0), tf.uint8)

    dataset = tf.data.Dataset.from_tensor_slices(images.paths)
    dataset = dataset.map(square, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH_SIZE)
    dataset = dataset.prefetch(tf.data.AUTOTUNE)
    return Loader("tf.data, decode_jpeg + resize", lambda: sum(len(batch) for batch in dataset))


def other_loaders(images: Images) -> list[Loader]:
    """Those whose packages are installed."""
    loaders = [pillow_loader(images)]
    for make in (keras_loader, tensorflow_loader):
        try:
            loaders.append(make(images))
        except ImportError:
            continue
    return loaders
