"""The 1,000 labels of ImageNet-1k in the order of the pretrained networks' outputs."""

from __future__ import annotations

from pathlib import Path

_LABELS_FILE = Path(__file__).with_name("imagenet_labels.txt")


def imagenet_labels() -> tuple[str, ...]:
    """1,000 distinct English labels; lines of the file that start with ``#`` are its notice."""
    lines = _LABELS_FILE.read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if not line.startswith("#"))
