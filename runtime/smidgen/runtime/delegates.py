"""Delegates of TFLite: what runs a model, or parts of it, instead of the engine's own kernels."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Callable, Optional

from smidgen.runtime.engine_checks import failed
from smidgen.runtime.errors import EngineFailed

LIBRARIES = {
    "edgetpu": "libedgetpu.so.1",
    "gpu": "libtensorflowlite_gpu_delegate.so",
    "nnapi": "libnnapi_delegate.so",
    "vx": "libvx_delegate.so",
}
"""Libraries that the loader is asked for: of Coral's Edge TPU, TensorFlow Lite's GPU and NNAPI
delegates, VeriSilicon's NPUs (NXP i.MX, Amlogic). The board's maker brings them, no wheel does; any
other is given by its path."""

_SWITCHES = ("xnnpack", "no-xnnpack")
_ENTRY_POINT = "tflite_plugin_create_delegate"

LoadDelegate = Callable[[str, dict[str, str]], Any]
"""A wheel's ``load_delegate``: a library's name or path, and options, to a delegate."""


def wants_xnnpack(delegates: Sequence[str]) -> Optional[bool]:
    """What ``"xnnpack"`` or ``"no-xnnpack"`` among ``delegates`` says; None: the wheel's default.

    Raises EngineFailed for both at once.
    """
    said = [name for name in _SWITCHES if name in delegates]
    if len(said) > 1:
        raise EngineFailed("delegates: 'xnnpack' and 'no-xnnpack' exclude each other; give one")
    return said[0] == "xnnpack" if said else None


def load_delegates(
    engine: str, delegates: Sequence[str], options: Sequence[tuple[str, str]], load: LoadDelegate
) -> list[Any]:
    """The delegates that are libraries, loaded in order.

    ``delegates``: names of ``LIBRARIES`` or paths; the XNNPACK switches are passed over.
    ``options``: keys and values for each of the libraries. Raises EngineFailed for an unknown name,
    a library that is missing or no delegate, or one that refuses (no device, a wrong option).
    """
    return [
        _loaded(engine, name, LIBRARIES.get(name) or _path(name), dict(options), load)
        for name in delegates
        if name not in _SWITCHES
    ]


def library_of(path: str) -> None:
    """Load a shared library. Raises OSError, or AttributeError where it is not a delegate.

    The wheels' own loader leaves a half-made object behind, whose end Python reports on stderr.
    """
    import ctypes

    getattr(ctypes.PyDLL(path), _ENTRY_POINT)


def _loaded(
    engine: str, name: str, library: str, options: dict[str, str], load: LoadDelegate
) -> Any:
    what = f"delegate {name!r}" + (f" ({library})" if library != name else "")
    try:
        return load(library, options)
    except OSError as error:
        advice = "cannot be loaded; install it, or give its path"
        raise failed(f"{engine}:", f"{what} {advice}", error) from error
    except AttributeError as error:
        raise EngineFailed(
            f"{engine}: {what} is not a delegate: it has no {_ENTRY_POINT}; give another path"
        ) from error
    except Exception as error:  # ValueError from the library itself, RuntimeError off CPython
        advice = "refused; check the device and the options"
        raise failed(f"{engine}:", f"{what} {advice}", error) from error


def _path(name: str) -> str:
    """``name`` as a path: it has a separator, or a library's ending. Raises EngineFailed."""
    base = Path(name).name
    if base != name or ".so" in base or base.endswith((".dylib", ".dll")):
        return name
    known = [*_SWITCHES, *LIBRARIES]
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise EngineFailed(
        f"unknown delegate {name!r}: {hint}known delegates: {', '.join(known)}, or the path of a "
        "library"
    )
