"""Signed Bundles: Ed25519 (RFC 8032), by the package ``cryptography`` (extra ``sign``).

What is signed is ``DOMAIN`` followed by the manifest's UTF-8 text, which holds the payload's hash.
The signature is one more text of the file: ``smidgen.sig`` in a ``.tflite``, ``smidgen.signature``
in an ``.onnx``, base64 of its 64 bytes. A signed file has one form only: the payload, and then
exactly the texts ``NAMES`` as ``container.texts_as_stored`` writes them. Runtimes that know
nothing of signatures read it all the same.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from dataclasses import dataclass
from typing import Any, Union

from smidgen.runtime.container import Container, texts_as_stored
from smidgen.runtime.errors import ArgumentInvalid, BundleUntrusted, SigningMissing
from smidgen.runtime.manifest import (
    LABELS_FILE,
    MANIFEST_FILE,
    ONNX_MANIFEST_HASH_KEY,
    ONNX_MANIFEST_KEY,
)

DOMAIN = b"smidgen Bundle, signature 1\0"
"""Keeps a signature over a manifest from being one over anything else."""

NAMES = {
    "tflite": (LABELS_FILE, MANIFEST_FILE, "smidgen.sig"),
    "onnx": (ONNX_MANIFEST_KEY, ONNX_MANIFEST_HASH_KEY, "smidgen.signature"),
}
MANIFESTS = {"tflite": MANIFEST_FILE, "onnx": ONNX_MANIFEST_KEY}
_SPKI_OF_ED25519 = bytes.fromhex("302a300506032b6570032100")  # RFC 8410
_MAX_KEY_BYTES = 10_000
_PEM = re.compile(rb"\s*-----BEGIN PUBLIC KEY-----([\sA-Za-z0-9+/=]+)-----END PUBLIC KEY-----\s*")
_KEY_FORMS = "expected the path of a PEM file (`smidgen sign --new-key` writes one), or 32 bytes"


@dataclass(frozen=True)
class TrustedKey:
    """The public half of an Ed25519 key pair: ``raw``, 32 bytes."""

    raw: bytes

    @classmethod
    def of(cls, source: KeySource) -> TrustedKey:
        """A key from the path of a PEM file, the bytes of one, or 32 raw bytes.

        Raises:
            ArgumentInvalid: none of these, or the file cannot be read.
        """
        if isinstance(source, TrustedKey):
            return source
        if isinstance(source, (str, os.PathLike)):
            source = read_key_file(source)
        if not isinstance(source, bytes):
            raise ArgumentInvalid(f"trusted key of type {type(source).__name__}: {_KEY_FORMS}")
        if len(source) == 32:
            return cls(source)
        match = _PEM.fullmatch(source)
        try:
            encoded = binascii.a2b_base64(match.group(1)) if match else b""
        except binascii.Error:
            encoded = b""
        if not encoded.startswith(_SPKI_OF_ED25519) or len(encoded) != len(_SPKI_OF_ED25519) + 32:
            raise ArgumentInvalid(f"not an Ed25519 public key: {_KEY_FORMS}")
        return cls(encoded[-32:])

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits to tell keys apart."""
        return hashlib.sha256(self.raw).hexdigest()[:16]


KeySource = Union[TrustedKey, str, bytes, "os.PathLike[str]"]


def verify(data: bytes, parts: Container, trusted_key: KeySource) -> None:
    """Pass a file whose manifest was signed with the key's private half, and that is all of it.

    The payload's hash is not looked at: that is for who reads the manifest.

    Raises:
        BundleUntrusted, SigningMissing, ArgumentInvalid: see ``Bundle.open``.
    """
    key, ed25519 = TrustedKey.of(trusted_key), library()
    kind = parts.model_format
    manifest, signature = parts.texts.get(MANIFESTS[kind]), parts.texts.get(NAMES[kind][2])
    if manifest is None or signature is None:
        raise BundleUntrusted(
            f"not signed, and only files signed with the key {key.fingerprint} are trusted; "
            "get the signed file, or sign it with `smidgen sign`"
        )
    try:
        public = ed25519.Ed25519PublicKey.from_public_bytes(key.raw)
        raw = base64.b64decode(signature, validate=True)
        public.verify(raw, DOMAIN + manifest)
    except Exception as error:  # InvalidSignature, ValueError: whatever it is, it is no proof
        raise BundleUntrusted(
            f"not signed with the trusted key {key.fingerprint}, or changed afterwards; "
            "get the right file, or the right key"
        ) from error
    texts = {**parts.texts, NAMES[kind][2]: base64.b64encode(raw)}
    size = sum(end - begin for begin, end in parts.payload)
    stored = texts_as_stored(kind, texts, size)
    if tuple(texts) != NAMES[kind] or (parts.payload, data[size:]) != (((0, size),), stored):
        raise BundleUntrusted(
            "the file holds bytes that its signature does not vouch for; sign it again"
        )


def read_key_file(path: Union[str, os.PathLike[str]]) -> bytes:
    """The content of a key file. Raises ArgumentInvalid."""
    try:
        with open(path, "rb") as stream:
            content = stream.read(_MAX_KEY_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ArgumentInvalid(f"key {os.fspath(path)!r}: {reason}; {_KEY_FORMS}") from error
    return content


def library() -> Any:
    """The module of Ed25519 keys. Raises SigningMissing."""
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise SigningMissing(
            "signatures need the package cryptography, which is not installed: "
            'run `pip install "smidgen-runtime[sign]"`'
        ) from error
    return ed25519
