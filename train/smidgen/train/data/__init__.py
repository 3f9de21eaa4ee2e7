"""The images of a Run: who is trained on, chosen with and tested on. Light to import.

``scan.take_inventory`` lists and hashes the images of a folder, labelled as ``DataRecipe.labels``
says:

- ``folders``: ``FOLDER/<label>/<image>``
- ``file-names``: ``FOLDER/<label><separator>...``, as ``cat.12.jpg``
- ``index``: a CSV file with the columns ``path`` and ``label``
- ``orientation``: upright images, which training turns; the turn is the label

Ready splits (a column of the index; else ``FOLDER/{train,validation,test}/`` with the same inside;
``val`` and ``valid`` are taken for ``validation``) stay as they are. ``divide`` cuts the others by
content hash. JPEG, PNG, WebP and BMP files count as images, by suffix; other files and hidden ones
are ignored and counted. Files are never moved or changed.
"""

from smidgen.train.data.dataset import (
    SPLITS,
    Dataset,
    Example,
    Found,
    Inventory,
    Skipped,
    Split,
    Task,
    skipped_csv,
)
from smidgen.train.data.splits import divide, position

__all__ = [
    "SPLITS",
    "Dataset",
    "Example",
    "Found",
    "Inventory",
    "Skipped",
    "Split",
    "Task",
    "divide",
    "position",
    "skipped_csv",
]
