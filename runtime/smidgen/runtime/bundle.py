"""The Bundle: one model file that carries its Manifest, opened with its bytes checked.

Format, in short (``container.py`` reads and writes it):

- ``.tflite``: a TFLite flatbuffer with a zip archive appended, which holds ``labels.txt`` (one
  label a line, UTF-8), ``smidgen.json`` and, where it is signed, ``smidgen.sig``, stored without
  compression. The *payload* is every byte before the archive.
- ``.onnx``: a protobuf ``ModelProto`` whose ``metadata_props`` (field 14) has the keys
  ``smidgen.manifest``, ``smidgen.manifest_sha256`` and, where it is signed,
  ``smidgen.signature``. The *payload* is the concatenation of the top-level records whose field
  number is not 14, tags included, in file order.

``Manifest.payload_sha256`` is the hash of the payload. Any bytes may be opened: whatever is wrong
ends in one ``BundleError``. What a right hash does not say is that the model means well: who can
write the model can write the manifest too. For files from others there are ``trusted_key`` (see
``signatures.py``) and engines in a child process (``isolation.py``).
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Union

from smidgen.runtime import container
from smidgen.runtime.container import Container, model_format
from smidgen.runtime.errors import BundleDamaged, BundleError, NotABundle
from smidgen.runtime.manifest import (
    LABELS_FILE,
    MANIFEST_FILE,
    ONNX_MANIFEST_HASH_KEY,
    ONNX_MANIFEST_KEY,
    Manifest,
)

if TYPE_CHECKING:
    from smidgen.runtime.signatures import KeySource

__all__ = [
    "MAX_BYTES",
    "Bundle",
    "labels_text",
    "model_format",
    "onnx_properties",
    "payload_of",
    "payload_sha256",
]

MAX_BYTES = 1 << 29
"""512 MiB. EfficientNetV2-L in float32, the largest that is exported, takes 475 MB."""

_NO_MANIFEST = (
    "it is a model but not a smidgen Bundle (or was cut short): "
    "export it with `smidgen export`, or copy it again"
)
_LONG_NUMBER = re.compile(rb"[\[:,\s-][0-9]{400}")
"""Python before 3.9.14 and 3.10.7 takes quadratic time for them."""
_CONTROL = re.compile(
    r"[\x7f-\x9f\u2028\u2029]|(?<!\\)(?:\\\\)*\\(?:[bfr]|u(?:00[0189]|007f|202[89]|d[89a-f]))", re.I
)
"""Characters that steer a terminal or end a line, as they are or escaped in JSON; ``\\n`` and
``\\t`` are not among them: the recipe has them. Halves of surrogate pairs cannot be printed."""
_MAX_SHOWN = 1000
_NOT_IN_LINE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True)
class Bundle:
    """A model file in memory whose manifest was read and whose payload hash is right."""

    path: Path
    manifest: Manifest
    data: bytes = field(repr=False)

    @functools.cached_property
    def file_sha256(self) -> str:
        """SHA-256 of the whole file; made when it is asked for, since answers do not need it."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def file_bytes(self) -> int:
        """Size of the file."""
        return len(self.data)

    @classmethod
    def open(
        cls, path: Union[str, os.PathLike[str]], *, trusted_key: Optional[KeySource] = None
    ) -> Bundle:
        """Read and check the whole file.

        Args:
            path: a file of at most MAX_BYTES.
            trusted_key: only a Bundle that was signed with this key's private half opens: see
                ``signatures.TrustedKey.of`` for what may be given. Nothing but the place of the
                manifest is looked at before its signature was verified.

        Raises:
            NotABundle: no such file, another kind of file, or a model without a manifest.
            BundleDamaged: cut short, or changed after it was written.
            BundleUntrusted: not signed with the trusted key, or
                has bytes that nothing vouches for.
            SigningMissing: a key was given, and the package that verifies is not installed.
            ArgumentInvalid: ``trusted_key`` is not a key.
        """
        file = Path(path)
        try:
            data = _read(file)
            return cls(file, _checked_manifest(data, trusted_key), data)
        except BundleError as error:
            raise type(error)(f"{_shown(file)}: {error}") from error


def payload_of(data: bytes) -> bytes:
    """The part of a model file that its manifest vouches for (see the top of this module).

    Works on models that have no manifest yet. Raises NotABundle or BundleDamaged.
    """
    return b"".join(data[begin:end] for begin, end in container.read(data).payload)


def payload_sha256(data: bytes) -> str:
    """SHA-256 of ``payload_of(data)``, without copying it. Raises NotABundle or BundleDamaged."""
    return _sha256_of_payload(data, container.read(data))


def labels_text(manifest: Manifest) -> bytes:
    """The content of ``labels.txt``."""
    return "".join(f"{label}\n" for label in manifest.labels).encode("utf-8", "surrogatepass")


def onnx_properties(manifest: Manifest) -> dict[str, str]:
    """The ``metadata_props`` entries which make an ONNX model a Bundle."""
    text = manifest.to_json()
    return {
        ONNX_MANIFEST_KEY: text,
        ONNX_MANIFEST_HASH_KEY: hashlib.sha256(text.encode("utf-8")).hexdigest(),
    }


def _read(file: Path) -> bytes:
    try:
        # Without O_NONBLOCK the opening of a named pipe would wait for a writer.
        handle = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _BINARY)
        with open(handle, "rb") as stream:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise NotABundle("not a file; expected a .tflite or .onnx Bundle")
            if status.st_size > MAX_BYTES:
                raise NotABundle(f"{status.st_size} bytes; a Bundle has at most {MAX_BYTES}")
            return stream.read(status.st_size)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NotABundle(f"cannot be opened ({reason}); check the path") from error


_BINARY: int = getattr(os, "O_BINARY", 0)  # Windows


def _checked_manifest(data: bytes, trusted_key: Optional[KeySource]) -> Manifest:
    parts = container.read(data)
    kind = parts.model_format
    text = parts.texts.get(MANIFEST_FILE if kind == "tflite" else ONNX_MANIFEST_KEY)
    if trusted_key is not None:
        from smidgen.runtime import signatures

        signatures.verify(data, parts, trusted_key)
    if text is None:
        raise NotABundle(_NO_MANIFEST)
    manifest = _parse_manifest(text)
    _check_copy(manifest, text, parts)
    if manifest.model_format != kind:
        raise NotABundle(
            f"the manifest is for a .{manifest.model_format} file, this one is .{kind}; "
            "export the model again"
        )
    found = _sha256_of_payload(data, parts)
    if found != manifest.payload_sha256:
        raise BundleDamaged(
            f"the model was changed after it was written (SHA-256 {found[:12]}..., manifest "
            f"{manifest.payload_sha256[:12]}...); copy or export it again"
        )
    return manifest


def _check_copy(manifest: Manifest, text: bytes, parts: Container) -> None:
    """What is there twice: the labels in a .tflite, the manifest's hash in an .onnx."""
    if parts.model_format == "tflite":
        labels = parts.texts.get(LABELS_FILE)
        if labels is None:
            raise BundleDamaged(f"{LABELS_FILE} is missing; export the model again")
        if labels != labels_text(manifest):
            raise BundleDamaged(
                f"{LABELS_FILE} differs from the manifest's {len(manifest.labels)} labels; "
                "export the model again"
            )
    elif parts.texts.get(ONNX_MANIFEST_HASH_KEY) != hashlib.sha256(text).hexdigest().encode():
        raise BundleDamaged("the manifest was changed after it was written; copy it again")


def _parse_manifest(content: bytes) -> Manifest:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BundleDamaged(
            "the manifest is not UTF-8 text; copy or export the file again"
        ) from error
    if _LONG_NUMBER.search(content):
        raise NotABundle("the manifest has a number of 400 digits; export the model again")
    manifest = Manifest.from_json(text)
    shown = [manifest.name, manifest.payload_sha256, *manifest.labels, *manifest.minimum_runtime]
    shown += [manifest.input.name, manifest.output.name, *manifest.minimum_runtime.values()]
    if max(map(len, shown)) > _MAX_SHOWN:
        raise NotABundle(
            f"a label or name has over {_MAX_SHOWN} characters; export the model again"
        )
    if _CONTROL.search(text) or _NOT_IN_LINE.search("".join(shown)):
        raise NotABundle("the manifest has control characters in its texts; export the model again")
    return manifest


def _sha256_of_payload(data: bytes, parts: Container) -> str:
    digest, view = hashlib.sha256(), memoryview(data)
    for begin, end in parts.payload:
        digest.update(view[begin:end])
    return digest.hexdigest()


def _shown(file: Path) -> str:
    """The path as part of one line that every terminal can show."""
    return _NOT_IN_LINE.sub("?", str(file))
