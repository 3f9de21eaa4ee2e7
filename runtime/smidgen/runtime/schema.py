"""Frozen dataclasses from mappings, strictly: the one reader of recipes and manifests.

A key that no field names, a value of the wrong type or out of range ends in a ``SchemaError`` of
one line which names the key, the nearest known one and what is allowed. Types understood: ``bool``,
``int``, ``float`` (an int is taken), ``str``, ``Literal[...]`` of strings, ``Optional[...]``,
``tuple[T, ...]``, ``tuple[T, T, T]``, ``dict[str, str]`` and nested dataclasses.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Optional, TypeVar, Union, cast, get_args, get_origin

from smidgen.runtime.errors import SchemaError

T = TypeVar("T")

MAX_ITEMS = 1 << 16
"""Of a list or table; a file from others may hold millions, which would take seconds."""


def setting(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    low: Optional[float] = None,
    high: Optional[float] = None,
    flag: Optional[str] = None,
) -> Any:
    """A dataclass field with its one-line description and, for numbers, its inclusive range.

    ``flag``: the command line's name for it, where that is not the field's own.
    """
    metadata = {"help": help, "low": low, "high": high, "flag": flag}
    return dataclasses.field(default=default, metadata=metadata)


def build(cls: type[T], mapping: object, *, where: str = "") -> T:
    """An instance of the dataclass ``cls`` from ``mapping``; ``where`` names it in messages.

    Raises:
        SchemaError: unknown or missing key, wrong type, value outside the allowed range or set.
    """
    if not isinstance(mapping, Mapping):
        raise SchemaError(
            f"{where or cls.__name__}: expected a table of keys, got {_show(mapping)}"
        )
    fields = {field.name: field for field in dataclasses.fields(cast(Any, cls)) if field.init}
    for key in mapping:
        if key not in fields:
            raise SchemaError(unknown_key(str(key), list(fields), where))
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in mapping:
            values[name] = convert(mapping[name], hints[name], _dotted(where, name), field.metadata)
        elif _is_required(field):
            raise SchemaError(
                f"{_dotted(where, name)} is missing: {field.metadata.get('help', '')}"
            )
    return cls(**values)


def convert(
    value: object, hint: Any, where: str, metadata: Optional[Mapping[str, Any]] = None
) -> Any:
    """``value`` as the type ``hint``, or a SchemaError that says what was expected at ``where``."""
    metadata = metadata or {}
    origin = get_origin(hint)
    if dataclasses.is_dataclass(hint):
        return build(cast(Any, hint), value, where=where)
    if origin is Union or type(hint).__name__ == "UnionType":
        return _convert_optional(value, hint, where, metadata)
    if origin is Literal:
        return _convert_choice(value, get_args(hint), where)
    if origin is tuple:
        return _convert_tuple(value, get_args(hint), where, metadata)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise SchemaError(f"{where}: expected a table of strings, got {_show(value)}")
        _check_length(value, where)
        inner = get_args(hint)[1]
        return {str(k): convert(v, inner, _dotted(where, _key(k))) for k, v in value.items()}
    return _convert_scalar(value, hint, where, metadata)


def as_mapping(value: Any) -> Any:
    """The inverse of ``build``: plain dicts, lists and scalars, ready for JSON or TOML.

    Fields that are None are left out (TOML has no null).
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {name: as_mapping(item) for name, item in pairs if item is not None}
    if isinstance(value, Mapping):
        return {str(key): as_mapping(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [as_mapping(item) for item in value]
    return value


def unknown_key(key: str, known: Sequence[str], where: str = "") -> str:
    """One line for a key that nothing knows, with the nearest known one and the whole list."""
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f" did you mean {near[0]!r}?" if near else ""
    place = f" in [{where}]" if where else ""
    return f"unknown key {_quoted(key)}{place};{hint} known keys: {', '.join(known)}"


def _convert_optional(value: object, hint: Any, where: str, metadata: Mapping[str, Any]) -> Any:
    inner = [arg for arg in get_args(hint) if arg is not type(None)]
    if len(inner) != 1:
        raise TypeError(f"{where}: a field may be Optional, not a wider union")
    return None if value is None else convert(value, inner[0], where, metadata)


def _convert_choice(value: object, choices: tuple[Any, ...], where: str) -> Any:
    if value in choices and type(value) is type(choices[0]):
        return value
    near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    allowed = ", ".join(repr(choice) for choice in choices)
    raise SchemaError(f"{where} = {_show(value)}: {hint}allowed values: {allowed}")


def _convert_tuple(
    value: object, args: tuple[Any, ...], where: str, metadata: Mapping[str, Any]
) -> Any:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise SchemaError(f"{where}: expected a list, got {_show(value)}")
    _check_length(value, where)
    if len(args) == 2 and args[1] is Ellipsis:
        hints = [args[0]] * len(value)
    else:
        hints = list(args)
        if len(value) != len(hints):
            raise SchemaError(f"{where}: expected {len(hints)} values, got {len(value)}")
    return tuple(
        convert(item, hint, f"{where}[{index}]", metadata)
        for index, (item, hint) in enumerate(zip(value, hints))
    )


def _convert_scalar(value: object, hint: Any, where: str, metadata: Mapping[str, Any]) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not hint:
        raise SchemaError(f"{where}: expected {_NAMES.get(hint, hint)}, got {_show(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise SchemaError(f"{where}: expected a finite number, got {value}")
    low, high = metadata.get("low"), metadata.get("high")
    if hint in (int, float):
        number = cast(float, value)
        if (low is not None and number < low) or (high is not None and number > high):
            raise SchemaError(f"{where} = {value}: allowed {_range(low, high)}")
    return value


_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
}


def _range(low: Optional[float], high: Optional[float]) -> str:
    if low is None:
        return f"at most {high:g}"
    if high is None:
        return f"at least {low:g}"
    return f"{low:g} to {high:g}"


def _check_length(value: Union[Mapping[Any, Any], Sequence[Any]], where: str) -> None:
    if len(value) > MAX_ITEMS:
        raise SchemaError(f"{where}: {len(value)} items, at most {MAX_ITEMS} are allowed")


def _key(key: object) -> str:
    text = str(key)
    return text if text.isprintable() and len(text) <= 60 else _quoted(text)


def _quoted(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _show(value: object) -> str:
    return f"{_quoted(value)} ({type(value).__name__})"


def _dotted(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
