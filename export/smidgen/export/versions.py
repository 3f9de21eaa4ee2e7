"""The versions of the packages that decide the bytes of the files."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("tensorflow", "keras", "tf2onnx", "onnx", "onnxruntime", "ai-edge-litert", "numpy")


def toolchain_versions() -> dict[str, str]:
    """Package name to installed version; those that are not installed are left out."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
