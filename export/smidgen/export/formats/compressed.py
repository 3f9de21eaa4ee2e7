"""What a model file weighs as a zip or gzip download: where clustered and sparse files shrink."""

from __future__ import annotations

import gzip
import io
import zipfile

_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_HARDEST = 9


def gzip_bytes(data: bytes) -> int:
    """Bytes of ``data`` as a gzip file: deflate at level 9, no name, no time."""
    return len(gzip.compress(data, _HARDEST, mtime=0))


def zip_bytes(data: bytes, name: str = "model") -> int:
    """Bytes of a zip archive with ``data`` as its one file: deflate at level 9, a fixed date.

    An app package (APK, IPA) stores a file that is marked as compressible in this way.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo(name, _ZIP_EPOCH)
        entry.compress_type = zipfile.ZIP_DEFLATED
        archive.writestr(entry, data, compresslevel=_HARDEST)
    return buffer.tell()
