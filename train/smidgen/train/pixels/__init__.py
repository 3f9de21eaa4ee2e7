"""The images as pixels: decoded once, kept on disk for all Runs, handed out in batches.

``open_pixels`` gives a ``PixelSource``; ``Batches`` and ``HeldOut`` take from it what a network is
trained on and measured with. Light to import; works without TensorFlow and without Keras.
"""

from __future__ import annotations

from collections.abc import Sequence

from smidgen.runtime.errors import OutputError
from smidgen.train.data import Example
from smidgen.train.errors import DiskSpaceError
from smidgen.train.pixels.batches import Batches, HeldOut, balanced_order, turned
from smidgen.train.pixels.cache import CachedPixels, decode_all
from smidgen.train.pixels.cache_folder import CacheFolder, default_folder, require_space
from smidgen.train.pixels.decoding import Decoder, ReferenceDecoder, TrainingDecoder
from smidgen.train.pixels.share import Share, home_order, own_positions
from smidgen.train.pixels.source import ArrayPixels, PartOfPixels, PixelSource
from smidgen.train.pixels.streaming import StreamedPixels
from smidgen.train.progress import Progress

__all__ = [
    "ArrayPixels",
    "Batches",
    "CacheFolder",
    "CachedPixels",
    "Decoder",
    "HeldOut",
    "PartOfPixels",
    "PixelSource",
    "ReferenceDecoder",
    "Share",
    "StreamedPixels",
    "TrainingDecoder",
    "balanced_order",
    "decode_all",
    "default_folder",
    "home_order",
    "open_pixels",
    "own_positions",
    "require_space",
    "turned",
]


def open_pixels(
    examples: Sequence[Example],
    decoder: Decoder,
    progress: Progress,
    cache: CacheFolder | None = None,
) -> PixelSource:
    """The pixels of ``examples``: from ``cache``, decoded now where they are not in it yet.

    Where the cache has no room or cannot be written, ``progress`` is told why, and the images are
    decoded anew for each batch.

    Args:
        examples: in any order; equal contents count once.
        decoder: makes the pixels.
        progress: is told what happens.
        cache: where decoded images are kept; None: the folder that all Runs share.

    Raises:
        DataError: an image changed or vanished meanwhile.
    """
    try:
        return decode_all(examples, decoder, cache or default_folder(), progress)
    except (DiskSpaceError, OutputError) as error:
        progress.note(f"{error}: decoding anew in each epoch (slower)")
        return StreamedPixels(examples, decoder, progress)
