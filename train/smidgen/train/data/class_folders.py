"""``data.labels = "folders"``: the name of an image's folder is its label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from smidgen.train.data.dataset import Split
from smidgen.train.data.listing import (
    File,
    Listing,
    bases,
    checked_labels,
    files_below,
    group_of,
    is_image,
    is_label,
    partition,
)
from smidgen.train.errors import DataError
from smidgen.train.recipe import DataRecipe

_HINT_DEEPER = (
    "; the class folders hold folders: give one of those, or name ready splits train/ with "
    "validation/ or test/"
)


def list_class_folders(root: Path, recipe: DataRecipe) -> Listing:
    """``ROOT/<label>/<image>``, or the same in ready splits.

    With ``group_by = "folder"`` images lie at any depth: ``ROOT/<label>/<group>/<image>``.

    Raises:
        DataError: no class folders, no images, a name that cannot be a label, or ready splits that
            do not fit together.
    """
    found, ignored = bases(root)
    files: list[File] = []
    labels: dict[Split | None, list[str]] = {}
    has_deeper = False
    for base in found:
        folders, stray = partition(base.folder)
        if not folders:
            raise _no_classes(base.folder, stray)
        labels[base.split] = [folder.name for folder in folders]
        ignored += len(stray)
        for folder in folders:
            deeper, inside = partition(folder)
            if recipe.group_by == "folder":
                inside, deeper = list(files_below(folder)), []
            images = [path for path in inside if is_image(path)]
            ignored += len(inside) - len(images) + len(deeper)
            has_deeper |= bool(deeper)
            for path in images:
                group = group_of(path, base, recipe)
                files.append(File(path, folder.name, base.split, group))
    if not files:
        raise DataError(
            f"{root} holds no image: expected .jpg, .jpeg, .png, .webp or .bmp files directly in "
            f"one folder per class ({ignored} other entries were ignored)"
            f"{_HINT_DEEPER if has_deeper else ''}"
        )
    return Listing(tuple(files), _names(root, checked_labels(root, labels)), ignored)


def _names(root: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not is_label(name):
            raise DataError(
                f"{root}: the class folder {name!r} cannot name a class: give it a name without "
                "spaces at its ends, control characters and bytes that are no UTF-8"
            )
    return names


def _no_classes(base: Path, stray: Sequence[Path]) -> DataError:
    images = sum(is_image(path) for path in stray)
    lying = f"{images} images lie directly in it" if images else "it holds no folder"
    return DataError(
        f"{base} has no class folders ({lying}); expected one folder of images per class"
        + (', or data.labels = "file-names" or "index"' if images else "")
    )
