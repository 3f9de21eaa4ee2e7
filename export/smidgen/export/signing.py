"""Signing Bundles. ``smidgen.runtime.signatures`` says what is signed, and verifies it."""

from __future__ import annotations

import base64
from typing import Any

from smidgen.runtime.container import read, texts_as_stored
from smidgen.runtime.errors import ArgumentInvalid, NotABundle
from smidgen.runtime.signatures import DOMAIN, MANIFESTS, NAMES, TrustedKey, library


def signed(data: bytes, private_pem: bytes) -> bytes:
    """The Bundle ``data`` with a signature, in place of any it had.

    Files of the archive and ``metadata_props`` that are not smidgen's are left out. Equal input
    gives equal bytes. Whether the Bundle is sound is not looked at: open it before.

    Args:
        data: of a Bundle, signed or not.
        private_pem: an Ed25519 private key without password, PEM (PKCS 8).

    Raises:
        NotABundle, BundleDamaged: no manifest to sign.
        ArgumentInvalid: not such a key.
        SigningMissing: the package is not installed.
    """
    key, parts = _private_key(private_pem), read(data)
    kind = parts.model_format
    *names, signature_name = NAMES[kind]
    if not all(name in parts.texts for name in names):
        raise NotABundle("a model without manifest cannot be signed; export it first")
    texts = {name: parts.texts[name] for name in names}
    texts[signature_name] = base64.b64encode(key.sign(DOMAIN + texts[MANIFESTS[kind]]))
    payload = b"".join(data[begin:end] for begin, end in parts.payload)
    return payload + texts_as_stored(kind, texts, len(payload))


def public_key_of(private_pem: bytes) -> TrustedKey:
    """What verifies the signatures of this private key. Raises ArgumentInvalid, SigningMissing."""
    return TrustedKey(_private_key(private_pem).public_key().public_bytes_raw())


def new_key_pair() -> tuple[bytes, bytes]:
    """A new private key (PKCS 8, no password) and its public key, both PEM.

    Raises SigningMissing.
    """
    key = library().Ed25519PrivateKey.generate()
    from cryptography.hazmat.primitives import serialization as form

    pem = form.Encoding.PEM
    return (
        key.private_bytes(pem, form.PrivateFormat.PKCS8, form.NoEncryption()),
        key.public_key().public_bytes(pem, form.PublicFormat.SubjectPublicKeyInfo),
    )


def _private_key(pem: bytes) -> Any:
    ed25519 = library()
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, password=None)
    except Exception as error:  # ValueError, TypeError for a password, UnsupportedAlgorithm
        raise ArgumentInvalid(
            "not a private key: expected PEM (PKCS 8) without a password, as "
            "`smidgen sign --new-key` writes it"
        ) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise ArgumentInvalid("not an Ed25519 key; make one with `smidgen sign --new-key`")
    return key
