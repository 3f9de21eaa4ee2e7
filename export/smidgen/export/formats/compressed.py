"""What a model file weighs as a gzip download: where clustered and sparse files shrink."""

from __future__ import annotations

import gzip

_HARDEST = 9


def gzip_bytes(data: bytes) -> int:
    """Bytes of ``data`` as a gzip file: deflate at level 9, no name, no time."""
    return len(gzip.compress(data, _HARDEST, mtime=0))
