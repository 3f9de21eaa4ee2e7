"""Reading a torch state dict without torch, and without running anything that the file asks for.

The legacy format (before torch 1.6) is, in one file: three pickles (magic number, protocol version,
facts about the machine), the pickled dict whose tensors name their storages by a persistent id, the
pickled list of storage keys, then each storage in that order: its count of elements as ``<i8`` and
the elements. A pickle can name any function to be called; this reader knows five names and builds
its own stand-ins for them, so nothing of the file's choice ever runs.
"""

from __future__ import annotations

import math
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from smidgen.train.errors import WeightsMismatch, WeightsUnsafe

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_DTYPES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "LongStorage": "<i8"}


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of a legacy torch file by name, in the file's order; own copies, C-contiguous.

    Raises:
        WeightsUnsafe: the pickle names something other than tensors.
        WeightsMismatch: not such a file, or cut short.
    """
    if zipfile.is_zipfile(path):
        raise WeightsMismatch(
            f"{path} is a torch file of the newer zip format; save it again with "
            "torch.save(..., _use_new_zipfile_serialization=False)"
        )
    try:
        with open(path, "rb") as stream:
            return _read(stream)
    except WeightsUnsafe as error:
        raise WeightsUnsafe(f"{path}: {error}") from error
    except (
        pickle.UnpicklingError,
        AttributeError,
        EOFError,
        IndexError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:
        raise WeightsMismatch(
            f"{path} is not a torch state dict, or cut short ({error}); fetch it again"
        ) from error


@dataclass(frozen=True)
class _Storage:
    dtype: np.dtype[Any]
    key: str
    count: int


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _rebuild(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


_ALLOWED: dict[tuple[str, str], Callable[..., Any] | str] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    **{("torch", name): name for name in _DTYPES},
}


class _Unpickler(pickle.Unpickler):
    """A pickle machine that can name nothing but the entries of ``_ALLOWED``."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise WeightsUnsafe(
                f"the pickle asks for {module}.{name}, which no weights file needs; refused"
            )
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _location, count, view = pid
        if kind != "storage" or view is not None:
            raise pickle.UnpicklingError(f"persistent id of the kind {kind!r}")
        return _Storage(np.dtype(_DTYPES[storage_type]), str(key), int(count))


def _read(stream: BinaryIO) -> dict[str, np.ndarray]:
    magic, protocol, machine = (_Unpickler(stream).load() for _ in range(3))
    if magic != _MAGIC or protocol != _PROTOCOL or not machine["little_endian"]:
        raise ValueError("unknown magic number, version or byte order")
    tensors = _Unpickler(stream).load()
    keys = _Unpickler(stream).load()
    dtypes = {tensor.storage.key: tensor.storage.dtype for tensor in tensors.values()}
    storages = {str(key): _read_storage(stream, dtypes[str(key)]) for key in keys}
    return {str(name): _array(tensor, storages) for name, tensor in tensors.items()}


def _read_storage(stream: BinaryIO, dtype: np.dtype[Any]) -> np.ndarray:
    count = int.from_bytes(stream.read(8), "little", signed=True)
    left_bytes = os.fstat(stream.fileno()).st_size - stream.tell()
    if not 0 <= count * dtype.itemsize <= left_bytes:
        raise EOFError(f"{count} elements do not fit into the {left_bytes} bytes that are left")
    return np.frombuffer(stream.read(count * dtype.itemsize), dtype)


def _array(tensor: _Tensor, storages: dict[str, np.ndarray]) -> np.ndarray:
    """The tensor's view of its storage, copied; the bounds are checked before numpy strides."""
    flat = storages[tensor.storage.key]
    shape, strides, offset = tensor.shape, tensor.strides, tensor.offset
    if len(shape) != len(strides) or min((offset, *shape, *strides)) < 0:
        raise ValueError(f"a tensor of shape {shape} with strides {strides}")
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if 0 not in shape and (last >= flat.size or math.prod(shape) > flat.size):
        raise ValueError("a tensor reaches beyond its storage")
    view = np.lib.stride_tricks.as_strided(
        flat[offset:], shape, tuple(step * flat.itemsize for step in strides), writeable=False
    )
    return np.ascontiguousarray(view).reshape(shape)
