"""Where ``smidgen run`` puts things in a Run folder, and how they are found again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from smidgen.cli.errors import NothingThere, UsageError
from smidgen.runtime.bundle import Bundle

RUNS = Path("runs")
RECIPE = "line.toml"
STAGES = "stages.json"
BUNDLES = "bundles"
BENCH = "bench"
JOURNAL = "measurements.jsonl"
REPORT_TEXT = "report.txt"
REPORT_MARKDOWN = "report.md"
REPORT_JSON = "report.json"
MODEL = "model.keras"
GATE_FAILED = ".gate-failed"

_SUFFIXES = (".tflite", ".onnx")


def bundle_files(folder: Path) -> tuple[Path, ...]:
    """The model files of a folder by name; none where there is no such folder."""
    if not folder.is_dir():
        return ()
    files = (path for path in folder.iterdir() if path.suffix in _SUFFIXES and path.is_file())
    return tuple(sorted(path for path in files if not path.name.startswith(".")))


def bundles_in(folder: Path) -> tuple[Path, ...]:
    """The model files of a Run folder, or of one of Bundles; none where nothing was exported."""
    return bundle_files(folder / BUNDLES) or bundle_files(folder)


def exported(
    folder: Path, stem: str, formats: Sequence[str], schemes: Sequence[str]
) -> tuple[Path, ...]:
    """The files that an export of these made, passed or not; what an earlier one left stays out."""
    names = [
        f"{stem}-{scheme}{mark}.{form}"
        for form in formats
        for scheme in schemes
        for mark in ("", GATE_FAILED)
    ]
    return tuple(folder / name for name in names if (folder / name).is_file())


def best_of_ladder(folder: Path, stem: str, formats: Sequence[str]) -> tuple[Path, ...]:
    """The file that a search within a budget found; none where nothing fits."""
    paths = (folder / f"{stem}-best.{form}" for form in formats)
    return tuple(path for path in paths if path.is_file())


def bundles_named(names: list[str]) -> tuple[Path, ...]:
    """Files as they are named; a folder (a Run, or one of Bundles) stands for the files in it.

    Raises:
        UsageError: nothing is there under that name.
        NothingThere: the folder holds no Bundle.
    """
    found: list[Path] = []
    for name in names:
        path = Path(name)
        if not path.exists():
            raise UsageError(f"{name}: no such file or folder; name a .tflite or .onnx Bundle")
        found += _in_folder(path) if path.is_dir() else [path]
    return tuple(dict.fromkeys(found))


def best_bundle(name: str) -> Path:
    """The file to use: the file of that name, or the best one of a Run folder.

    The best is the smallest one that passed its gate; where none passed, the smallest float32 one
    whose gate did not fail.

    Raises:
        UsageError: nothing is there under that name.
        NothingThere: the folder holds no such Bundle.
        BundleError: a Bundle in it is damaged.
    """
    path = Path(name)
    if not path.is_dir():
        return bundles_named([name])[0]
    bundles = [Bundle.open(file) for file in _in_folder(path)]
    ranked = sorted((rank, b.file_bytes, b.path) for b in bundles if (rank := _rank(b)) is not None)
    if not ranked:
        raise NothingThere(
            f"no Bundle in {name} passed its gate: name the file to use, or export again"
        )
    return ranked[0][2]


def _rank(bundle: Bundle) -> int | None:
    """0 passed, 1 float and not failed; None: not to be used without being asked for."""
    verdict = bundle.manifest.verdict
    if verdict is not None and verdict.verdict == "pass":
        return 0
    failed = GATE_FAILED in bundle.path.name or (verdict is not None and verdict.verdict == "fail")
    return 1 if bundle.manifest.scheme == "float32" and not failed else None


def _in_folder(folder: Path) -> tuple[Path, ...]:
    files = bundles_in(folder)
    if not files:
        raise NothingThere(
            f"{folder} holds no .tflite or .onnx file: make them with `smidgen export {folder}`"
        )
    return files
