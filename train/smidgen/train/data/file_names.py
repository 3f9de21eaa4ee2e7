"""``data.labels = "file-names"``: an image's name begins with its label, as ``cat.12.jpg``."""

from __future__ import annotations

from pathlib import Path

from smidgen.train.data.dataset import Skipped, Split
from smidgen.train.data.listing import (
    File,
    Listing,
    bases,
    checked_labels,
    group_of,
    is_image,
    is_label,
    partition,
)
from smidgen.train.errors import DataError
from smidgen.train.recipe import DataRecipe


def list_file_names(root: Path, recipe: DataRecipe) -> Listing:
    """Images directly in ``root`` or in its ready splits, labelled by their names.

    The label ends before the first ``separator``; the file's suffix is no part of the name. An
    image whose name gives no label is skipped. Folders are ignored.

    Raises:
        DataError: no image with a label, or ready splits that do not fit together.
    """
    found, ignored = bases(root)
    files: list[File] = []
    skipped: list[Skipped] = []
    labels: dict[Split | None, set[str]] = {}
    for base in found:
        folders, inside = partition(base.folder)
        images = [path for path in inside if is_image(path)]
        ignored += len(inside) - len(images) + len(folders)
        names = labels.setdefault(base.split, set())
        for path in images:
            label, end, _ = path.stem.partition(recipe.separator)
            if end and is_label(label):
                group = group_of(path, base, recipe)
                files.append(File(path, label, base.split, group))
                names.add(label)
            else:
                skipped.append(Skipped(str(path), _reason(label, end, recipe.separator)))
    if not files:
        example = f" (skipped, for instance, {skipped[0].path})" if skipped else ""
        raise DataError(
            f"{root} holds no image whose name begins with a label and {recipe.separator!r}, as "
            f"cat{recipe.separator}12.jpg{example}; name them so, or choose another data.separator "
            "or data.labels"
        )
    in_order = {split: sorted(names) for split, names in labels.items()}
    return Listing(tuple(files), checked_labels(root, in_order), ignored, tuple(skipped))


def _reason(label: str, end: str, separator: str) -> str:
    if not end:
        return f"no label: there is no {separator!r} in its name"
    return f"no label: {label!r}, which stands before {separator!r}, cannot name a class"
