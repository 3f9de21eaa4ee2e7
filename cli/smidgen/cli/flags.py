"""Command-line flags made from the recipe dataclasses: a setting is defined once, there.

A flag is its key with dashes (``image_size`` -> ``--image-size``). A key that stands in several
tables is told apart by its table (``--data-seed``, ``--schedule-seed``), in every command alike;
some settings name their flag themselves.
"""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from smidgen.cli.recipe_file import TABLES, Tables
from smidgen.runtime.errors import SchemaError
from smidgen.runtime.schema import convert

_PREFIX = "recipe."


@dataclass(frozen=True)
class Flag:
    """One setting on the command line."""

    table: str
    key: str
    option: str
    hint: Any
    field: dataclasses.Field[Any]

    @property
    def destination(self) -> str:
        """Where argparse keeps the text."""
        return f"{_PREFIX}{self.table}.{self.key}"

    def value(self, text: str) -> Any:
        """The text as the setting's type. Raises SchemaError with what is allowed."""
        return convert(_plain(text, self.hint, self.option), self.hint, self.option, self._range())

    def describe(self) -> str:
        """The setting's own help, what is allowed, and the default."""
        notes = [note for note in (_allowed(self.hint, self._range()), self._default()) if note]
        text = str(self.field.metadata.get("help", ""))
        return (f"{text} [{'; '.join(notes)}]" if notes else text).replace("%", "%%")

    def _range(self) -> dict[str, Any]:
        return dict(self.field.metadata)

    def _default(self) -> str:
        value = self.field.default
        if value is dataclasses.MISSING or value in ("", ()):
            return ""
        if isinstance(value, tuple):
            value = ",".join(str(item) for item in value)
        if isinstance(value, bool):
            value = "yes" if value else "no"
        return f"default {value}"


def flags_of(tables: Sequence[str]) -> tuple[Flag, ...]:
    """The flags of these tables, in the order of the fields."""
    keys = Counter(
        field.name
        for cls in TABLES.values()
        for field in dataclasses.fields(cls)
        if not field.metadata.get("flag")
    )
    flags = []
    for table in tables:
        hints = typing.get_type_hints(TABLES[table])
        for field in dataclasses.fields(TABLES[table]):
            name = field.name if keys[field.name] == 1 else f"{table}_{field.name}"
            option = field.metadata.get("flag") or "--" + name.replace("_", "-")
            flags.append(Flag(table, field.name, option, hints[field.name], field))
    return tuple(flags)


def add_flags(parser: argparse.ArgumentParser, tables: Sequence[str]) -> None:
    """Give ``parser`` the flags of these tables, a group of the help for each."""
    for table in tables:
        group = parser.add_argument_group(f"settings of [{table}] in a recipe file")
        for flag in flags_of([table]):
            if flag.hint is bool:
                group.add_argument(
                    flag.option,
                    dest=flag.destination,
                    action=argparse.BooleanOptionalAction,
                    help=flag.describe(),
                )
            else:
                group.add_argument(
                    flag.option, dest=flag.destination, metavar=_metavar(flag), help=flag.describe()
                )


def overrides(arguments: argparse.Namespace, tables: Sequence[str]) -> Tables:
    """What the command line says of these tables, converted and checked. Raises SchemaError."""
    found: Tables = {}
    for flag in flags_of(tables):
        given = getattr(arguments, flag.destination, None)
        if given is not None:
            value = given if isinstance(given, bool) else flag.value(given)
            found.setdefault(flag.table, {})[flag.key] = value
    return found


def _plain(text: str, hint: Any, option: str) -> Any:
    """Text as the plain value that a TOML file would hold."""
    if get_origin(hint) is tuple:
        inner = get_args(hint)[0]
        return [_plain(item.strip(), inner, option) for item in text.split(",") if item.strip()]
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            kind = "a whole number" if hint is int else "a number"
            raise SchemaError(f"{option}: expected {kind}, got {text!r}") from None
    return text


def _allowed(hint: Any, metadata: dict[str, Any]) -> str:
    inner = get_args(hint)[0] if get_origin(hint) is tuple else hint
    if get_origin(inner) is Literal:
        words = ", ".join(str(choice) for choice in get_args(inner))
        return f"any of {words}" if inner is not hint else f"one of {words}"
    low, high = metadata.get("low"), metadata.get("high")
    if low is None and high is None:
        return ""
    if high is None:
        return f"at least {low:g}"
    return f"{low:g} to {high:g}" if low is not None else f"at most {high:g}"


def _metavar(flag: Flag) -> str:
    if get_origin(flag.hint) is tuple:
        return "A,B,..."
    if flag.key == "folder":
        return "FOLDER"
    names = {int: "N", float: "X"}
    return names.get(flag.hint, "NAME")
