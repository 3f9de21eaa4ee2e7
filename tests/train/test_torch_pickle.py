"""The restricted unpickler: the real weights, planted faults, and files that mean harm."""

from __future__ import annotations

import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smidgen.train.errors import WeightsMismatch, WeightsMissing, WeightsUnsafe
from smidgen.train.models.torch_pickle import read_state_dict
from smidgen.train.models.weights_file import weights_path

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001


class FloatStorage:
    """Pickles as torch's storage type of that name."""


FloatStorage.__module__ = "torch"


class _Rebuilt:
    """Pickles as a call of torch's function that makes a tensor."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments


class _LegacyPickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Writes the two torch names by hand, as they cannot be imported here."""

    def persistent_id(self, value: object) -> object:
        if isinstance(value, tuple) and value[:1] == ("storage",):
            return value
        return None

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if obj is FloatStorage:
            self.write(b"ctorch\nFloatStorage\n")
        else:
            super().save_global(obj, name)

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, _Rebuilt):
            self.write(b"ctorch._utils\n_rebuild_tensor_v2\n")
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(obj, save_persistent_id)


def legacy_file(
    path: Path,
    shape: tuple[int, ...] = (2, 3),
    strides: tuple[int, ...] = (3, 1),
    values: int = 6,
) -> Path:
    """A legacy torch file with the one tensor ``w``: 0, 1, 2, ..."""
    storage = ("storage", FloatStorage, "7", "cpu", values, None)
    tensor = _Rebuilt(storage, 0, shape, strides, False, OrderedDict())
    stream = io.BytesIO()
    for part in (MAGIC, VERSION, {"little_endian": True}, OrderedDict(w=tensor), ["7"]):
        _LegacyPickler(stream, protocol=2).dump(part)
    stream.write(values.to_bytes(8, "little") + np.arange(values, dtype="<f4").tobytes())
    path.write_bytes(stream.getvalue())
    return path


class _Harm:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def test_strides_are_honoured(tmp_path: Path) -> None:
    plain = read_state_dict(legacy_file(tmp_path / "a.pth"))["w"]
    np.testing.assert_array_equal(plain, np.arange(6, dtype="f4").reshape(2, 3))
    turned = read_state_dict(legacy_file(tmp_path / "b.pth", (2, 3), (1, 2)))["w"]
    np.testing.assert_array_equal(turned, np.arange(6, dtype="f4").reshape(3, 2).T)


def test_a_pickle_that_runs_a_command_is_refused(tmp_path: Path) -> None:
    witness, path = tmp_path / "witness", tmp_path / "harm.pth"
    harm = pickle.dumps(_Harm(f"touch {witness}"), protocol=2)
    path.write_bytes(b"".join(pickle.dumps(p, protocol=2) for p in (MAGIC, VERSION)) + harm)
    with pytest.raises(WeightsUnsafe, match=r"system, which no weights file needs; refused"):
        read_state_dict(path)
    assert not witness.exists()
    pickle.loads(harm)
    assert witness.exists(), "the planted command does nothing: the test proves nothing"


@pytest.mark.parametrize("name", ["builtins\neval", "torch\nload", "collections\nCounter"])
def test_any_other_name_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.pth").write_bytes(b"\x80\x02c" + name.encode("ascii") + b"\n.")
    with pytest.raises(WeightsUnsafe):
        read_state_dict(tmp_path / "x.pth")


def test_tensors_beyond_their_storage_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsMismatch, match="beyond its storage"):
        read_state_dict(legacy_file(tmp_path / "a.pth", (2, 4), (4, 1)))
    with pytest.raises(WeightsMismatch, match="with strides"):
        read_state_dict(legacy_file(tmp_path / "b.pth", (2, 3), (-3, 1)))


def test_numbers_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsMismatch, match="beyond its storage"):
        read_state_dict(legacy_file(tmp_path / "a.pth", (1 << 50, 2), (0, 0)))
    content = bytearray(legacy_file(tmp_path / "b.pth").read_bytes())
    content[-32:-24] = (1 << 50).to_bytes(8, "little")  # the count before six float32
    (tmp_path / "b.pth").write_bytes(content)
    with pytest.raises(WeightsMismatch, match="1125899906842624 elements do not fit into the 24 b"):
        read_state_dict(tmp_path / "b.pth")


def test_damaged_files_are_told_in_one_line(tmp_path: Path) -> None:
    whole = legacy_file(tmp_path / "a.pth").read_bytes()
    for size in (0, 10, 100, len(whole) - 1):
        (tmp_path / "cut.pth").write_bytes(whole[:size])
        with pytest.raises(WeightsMismatch, match="cut short") as caught:
            read_state_dict(tmp_path / "cut.pth")
        assert "\n" not in str(caught.value)
    (tmp_path / "text.pth").write_bytes(b"these are not weights")
    with pytest.raises(WeightsMismatch):
        read_state_dict(tmp_path / "text.pth")


def test_the_real_file_reads_whole() -> None:
    try:
        path = weights_path("efficientnet-lite0", "imagenet")
    except WeightsMissing as error:
        pytest.skip(str(error))
    assert path is not None
    state = read_state_dict(path)
    assert len(state) == 296
    assert state["_conv_stem.weight"].shape == (32, 3, 3, 3)
    numbers = sum(a.size for n, a in state.items() if n.endswith(("weight", "bias")))
    assert numbers == 4_652_008
    assert state["_fc.bias"].mean() == pytest.approx(0.0, abs=1e-3)
