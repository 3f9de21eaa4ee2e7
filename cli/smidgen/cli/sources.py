"""What ``smidgen run`` and ``smidgen train`` start from: a folder of images, or a recipe file."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from smidgen.cli import layout
from smidgen.cli.errors import UsageError
from smidgen.cli.flags import overrides
from smidgen.cli.recipe_file import LineRecipe, Tables, line_recipe, load, merged, resolve_paths


def add_source(parser: argparse.ArgumentParser, *, is_optional: bool = False) -> None:
    """The two arguments that both commands share."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs="?" if is_optional else None,
        help="folder of images (a folder per class), or a recipe.toml",
    )
    parser.add_argument(
        "--out", metavar="RUN", help="the Run folder (default: runs/ and the name of SOURCE)"
    )


def recipe_and_run(arguments: argparse.Namespace, tables: Sequence[str]) -> tuple[LineRecipe, Path]:
    """The recipe with the flags of ``tables`` merged in, and the Run folder.

    Raises:
        UsageError: no such source, or a Run folder inside the images.
        SchemaError: a setting is unknown or has a wrong value.
    """
    source = Path(arguments.source)
    given = overrides(arguments, tables)
    resolve_paths(given, Path.cwd())
    recipe = line_recipe(merged(_base(source, given), given))
    run = Path(arguments.out) if arguments.out else layout.RUNS / _name(source)
    _check_places(recipe, run)
    return recipe, run


def _base(source: Path, given: Tables) -> Tables:
    if source.is_dir():
        if "folder" in given.get("data", {}):
            raise UsageError(
                f"two folders of images: {source} and --folder "
                f"{given['data']['folder']}; name one of them"
            )
        return {"data": {"folder": str(source.resolve())}}
    if source.suffix == ".toml":
        return load(source)
    if source.exists():
        raise UsageError(f"{source} is a file: expected a folder of images, or a recipe.toml")
    raise UsageError(f"{source}: no such folder of images, and no such recipe.toml")


def _name(source: Path) -> str:
    resolved = source.resolve()
    return (resolved.stem if resolved.is_file() else resolved.name) or "run"


def _check_places(recipe: LineRecipe, run: Path) -> None:
    images, place = Path(recipe.data.folder).resolve(), run.resolve()
    if not images.is_dir():
        raise UsageError(f"data.folder = {recipe.data.folder}: no such folder of images")
    for path in (images, place):
        if not _is_utf8(path):
            raise UsageError(
                f"{path}: a recipe file cannot hold a name that is not UTF-8; rename the folder"
            )
    if place.is_relative_to(images):
        raise UsageError(
            f"the Run folder {run} would lie among the images in {images}, as one more class: "
            "choose another place with --out"
        )
    if place.exists() and not place.is_dir():
        raise UsageError(f"--out {run} is a file: expected a folder, or a new name")


def _is_utf8(path: Path) -> bool:
    try:
        os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
