"""What export made: in memory, and as ``export.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smidgen.export.recipe import Format
from smidgen.runtime.bundle import Bundle
from smidgen.runtime.errors import RuntimeRoomError, SchemaError
from smidgen.runtime.files import write_text
from smidgen.runtime.manifest import Scheme, Verdict
from smidgen.runtime.schema import as_mapping, build

REPORT_FILE = "export.json"


@dataclass(frozen=True)
class ExportedBundle:
    """One file that was made and judged.

    ``passed`` follows the verdict and, where that is undecided, the recipe's ``undecided``. ``key``
    is the hash of everything that decides the file. ``facts`` was found on this machine, in words
    (parity of formats and batches, timed variants, RAM); ``seconds`` is the time of each step.
    """

    file: str
    model_format: Format
    scheme: Scheme
    passed: bool
    verdict: Verdict
    file_bytes: int
    gzip_bytes: int
    file_sha256: str
    key: str
    facts: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    folder: str = ""

    @property
    def path(self) -> Path:
        """Where the file is."""
        return Path(self.folder, self.file)


@dataclass(frozen=True)
class Failure:
    """One file that could not be made or judged, and why in one line."""

    model_format: Format
    scheme: Scheme
    reason: str


@dataclass(frozen=True)
class ExportResult:
    """All files of one export; ``failed`` where any of them did not pass, or could not be made."""

    folder: Path
    bundles: tuple[ExportedBundle, ...]
    failures: tuple[Failure, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Every file was made, judged and passed."""
        return not self.failures and all(bundle.passed for bundle in self.bundles)

    @property
    def failed(self) -> bool:
        """The opposite of ``ok``."""
        return not self.ok

    def write(self) -> None:
        """Write ``export.json`` into the folder. Raises OutputError."""
        mapping = {
            "ok": self.ok,
            "bundles": [_plain(bundle) for bundle in self.bundles],
            "failures": [as_mapping(failure) for failure in self.failures],
            "seconds": self.seconds,
            "versions": self.versions,
        }
        text = json.dumps(mapping, indent=2, sort_keys=True, ensure_ascii=False)
        write_text(self.folder / REPORT_FILE, text + "\n")


def made_before(folder: Path) -> tuple[ExportedBundle, ...]:
    """The Bundles that an earlier export into ``folder`` reported; none where there was none."""
    try:
        mapping = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
        return tuple(_build(entry, folder) for entry in mapping["bundles"])
    except (OSError, ValueError, KeyError, TypeError, SchemaError):
        return ()


def is_intact(bundle: ExportedBundle) -> bool:
    """Whether the file is still there, with the bytes that were judged."""
    try:
        return Bundle.open(bundle.path).file_sha256 == bundle.file_sha256
    except (RuntimeRoomError, OSError):
        return False


def _plain(bundle: ExportedBundle) -> dict[str, Any]:
    mapping: dict[str, Any] = as_mapping(bundle)
    mapping["seconds"], mapping["facts"] = dict(bundle.seconds), dict(bundle.facts)
    del mapping["folder"]  # a folder may be moved
    return mapping


def _build(entry: dict[str, Any], folder: Path) -> ExportedBundle:
    seconds = {str(name): float(value) for name, value in entry.pop("seconds", {}).items()}
    verdict = build(Verdict, entry.pop("verdict"), where="verdict")
    return ExportedBundle(**entry, verdict=verdict, seconds=seconds, folder=str(folder))
