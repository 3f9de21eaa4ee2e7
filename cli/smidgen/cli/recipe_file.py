"""One TOML file for the whole line, merged with the command line's flags."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomllib

from smidgen.bench.recipe import BenchRecipe
from smidgen.cli.errors import UsageError
from smidgen.export.recipe import (
    BudgetRecipe,
    ChannelsRecipe,
    ClusteringRecipe,
    DecisionsRecipe,
    ExportPlan,
    ExportRecipe,
    QatRecipe,
    QuantizationRecipe,
    SparsityRecipe,
)
from smidgen.runtime.errors import SchemaError
from smidgen.runtime.schema import as_mapping, build, unknown_key
from smidgen.train import recipe_toml
from smidgen.train.recipe import (
    DataRecipe,
    DistillationRecipe,
    ModelRecipe,
    ScheduleRecipe,
    TrainRecipe,
)

Tables = dict[str, dict[str, Any]]
"""Table name -> key -> plain value: what a TOML file holds, and what flags override."""

_PATHS = (("data", "folder"), ("model", "weights"), ("distillation", "teachers"))
_NOT_PATHS = ("imagenet", "none")


@dataclass(frozen=True)
class LineRecipe:
    """Everything that decides what ``smidgen run`` makes; each field is a table of the file."""

    data: DataRecipe
    model: ModelRecipe = field(default_factory=ModelRecipe)
    schedule: ScheduleRecipe = field(default_factory=ScheduleRecipe)
    distillation: DistillationRecipe = field(default_factory=DistillationRecipe)
    export: ExportRecipe = field(default_factory=ExportRecipe)
    quantization: QuantizationRecipe = field(default_factory=QuantizationRecipe)
    channels: ChannelsRecipe = field(default_factory=ChannelsRecipe)
    sparsity: SparsityRecipe = field(default_factory=SparsityRecipe)
    clustering: ClusteringRecipe = field(default_factory=ClusteringRecipe)
    qat: QatRecipe = field(default_factory=QatRecipe)
    decisions: DecisionsRecipe = field(default_factory=DecisionsRecipe)
    budget: BudgetRecipe = field(default_factory=BudgetRecipe)
    bench: BenchRecipe = field(default_factory=BenchRecipe)

    @property
    def train(self) -> TrainRecipe:
        """The tables that decide the Run."""
        return TrainRecipe(self.data, self.model, self.schedule, self.distillation)

    @property
    def plan(self) -> ExportPlan:
        """The tables that decide what export makes."""
        return ExportPlan(
            self.export,
            self.quantization,
            self.channels,
            self.sparsity,
            self.clustering,
            self.qat,
            self.decisions,
        )

    def to_toml(self) -> str:
        """The resolved recipe, every default written out."""
        return recipe_toml.dumps(as_mapping(self))


TABLES: dict[str, Any] = typing.get_type_hints(LineRecipe)
"""Every table of a recipe file with the dataclass that defines its keys, in order."""

TRAIN_TABLES = tuple(field.name for field in dataclasses.fields(TrainRecipe))

EXPORT_TABLES = (*(field.name for field in dataclasses.fields(ExportPlan)), "budget")


def load(path: Path) -> Tables:
    """The tables of a recipe file; relative paths in it are taken from the file's own folder.

    Keys and values are checked when the tables become a recipe.

    Raises:
        UsageError: no such file, or it is not UTF-8.
        SchemaError: it is not TOML, or has a table that nothing knows.
    """
    try:
        mapping = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the recipe {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the recipe {path} is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise SchemaError(f"the recipe {path} is not TOML: {error}") from error
    for name, table in mapping.items():
        if name not in TABLES:
            raise SchemaError(f"{path}: {_unknown_table(name)}")
        if not isinstance(table, Mapping):
            raise SchemaError(f"{path}: {name} must be a table: write [{name}] on its own line")
    resolve_paths(mapping, path.parent)
    return mapping


def resolve_paths(tables: Tables, folder: Path) -> None:
    """Make the paths in ``tables`` absolute, in place; relative ones are taken from ``folder``."""
    for table, key in _PATHS:
        value = tables.get(table, {}).get(key)
        if isinstance(value, str):
            tables[table][key] = _absolute(value, folder)
        elif isinstance(value, (list, tuple)):
            tables[table][key] = [
                _absolute(item, folder) if isinstance(item, str) else item for item in value
            ]


def _absolute(value: str, folder: Path) -> str:
    if not value or value in _NOT_PATHS:
        return value
    return str((folder / Path(value).expanduser()).resolve())


def merged(base: Mapping[str, Mapping[str, Any]], over: Mapping[str, Mapping[str, Any]]) -> Tables:
    """``base`` with the values of ``over`` in the place of its own, key by key."""
    names = [name for name in TABLES if name in base or name in over]
    return {name: {**base.get(name, {}), **over.get(name, {})} for name in names}


def line_recipe(tables: Mapping[str, Mapping[str, Any]]) -> LineRecipe:
    """The checked recipe. Raises SchemaError naming the key, its nearest known one, the allowed."""
    return build(LineRecipe, {"data": {}, **tables})


def export_plan(tables: Mapping[str, Mapping[str, Any]]) -> ExportPlan:
    """The plan that export's tables are. Raises SchemaError."""
    names = [field.name for field in dataclasses.fields(ExportPlan)]
    return build(ExportPlan, {name: tables[name] for name in names if name in tables})


def one_table(tables: Mapping[str, Mapping[str, Any]], name: str) -> Any:
    """The recipe of one table alone, as its own dataclass. Raises SchemaError."""
    return build(TABLES[name], tables.get(name, {}), where=name)


def _unknown_table(name: str) -> str:
    """Like an unknown key; a key above the first table is told which table it belongs in."""
    homes = [
        table for table, cls in TABLES.items() if name in {f.name for f in dataclasses.fields(cls)}
    ]
    if homes:
        return f"{name!r} belongs in the table [{homes[0]}]: write [{homes[0]}] above it"
    return unknown_key(name, list(TABLES)).replace("keys:", "tables:").replace("key", "table", 1)
