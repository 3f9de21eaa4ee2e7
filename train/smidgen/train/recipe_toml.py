"""Writing TOML (the standard library only reads it): what recipes and result folders need of it.

Tables one level deep, with texts, whole numbers, finite numbers, booleans and flat lists of these.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def dumps(mapping: Mapping[str, Any]) -> str:
    """``mapping`` as TOML: plain keys first, then each nested mapping as a ``[table]``.

    Raises:
        TypeError: a value that this subset of TOML does not hold.
    """
    plain = {key: value for key, value in mapping.items() if not isinstance(value, Mapping)}
    blocks = [_pairs(plain)] if plain else []
    for key, value in mapping.items():
        if isinstance(value, Mapping):
            blocks.append(f"[{_key(key)}]\n" + _pairs(value))
    return "\n".join(blocks)


def _pairs(mapping: Mapping[str, Any]) -> str:
    return "".join(f"{_key(key)} = {_value(value)}\n" for key, value in mapping.items())


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _text(key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)  # inf and nan, too, are spelled in TOML as in Python
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    raise TypeError(f"no TOML for {value!r} ({type(value).__name__})")


def _text(text: str) -> str:
    # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
