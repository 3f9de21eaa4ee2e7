"""Signed Bundles: with a trusted key, nothing opens but what its private half signed, whole."""

from __future__ import annotations

import base64
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, Callable

import pytest

from smidgen.export.signing import new_key_pair, public_key_of, signed
from smidgen.runtime import ArgumentInvalid, Bundle, BundleError, NotABundle
from smidgen.runtime.bundle import payload_of
from smidgen.runtime.container import read, texts_as_stored
from smidgen.runtime.errors import BundleUntrusted
from smidgen.runtime.signatures import DOMAIN, NAMES, TrustedKey

pytest.importorskip("cryptography")
MakeBundle = Callable[..., Path]
FORMATS = ("tflite", "onnx")
PRIVATE, PUBLIC = new_key_pair()


def untrusted(path: Path, key: Any = PUBLIC) -> str:
    with pytest.raises(BundleUntrusted) as caught:
        Bundle.open(path, trusted_key=key)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.fixture(params=FORMATS)
def signed_bundle(make_bundle: MakeBundle, request: pytest.FixtureRequest) -> Path:
    path = make_bundle(request.param)
    path.write_bytes(signed(path.read_bytes(), PRIVATE))
    return path


def test_a_signed_bundle_opens_with_and_without_its_key(signed_bundle: Path) -> None:
    plain = Bundle.open(signed_bundle)
    assert Bundle.open(signed_bundle, trusted_key=PUBLIC) == plain


@pytest.mark.parametrize("model_format", FORMATS)
def test_exactly_one_text_is_added(make_bundle: MakeBundle, model_format: Any) -> None:
    path = make_bundle(model_format)
    data, found = path.read_bytes(), signed(path.read_bytes(), PRIVATE)
    assert payload_of(found) == payload_of(data)
    before, after = read(data).texts, read(found).texts
    name = NAMES[model_format][2]
    assert len(base64.b64decode(after.pop(name), validate=True)) == 64
    assert after == before
    assert signed(data, PRIVATE) == signed(found, PRIVATE) == found  # again: the same bytes
    assert signed(found, new_key_pair()[0]) != found


def test_the_signature_is_ed25519_over_domain_and_manifest(signed_bundle: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    parts = read(signed_bundle.read_bytes())
    names = NAMES[parts.model_format]
    manifest = parts.texts[names[1 if parts.model_format == "tflite" else 0]]
    public = Ed25519PublicKey.from_public_bytes(TrustedKey.of(PUBLIC).raw)
    public.verify(base64.b64decode(parts.texts[names[2]]), DOMAIN + manifest)


def test_other_files_are_refused(
    signed_bundle: Path, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    kind = signed_bundle.suffix[1:]
    assert "not signed with the trusted key" in untrusted(signed_bundle, new_key_pair()[1])
    unsigned = tmp_path / "unsigned"
    unsigned.write_bytes(make_bundle(kind).read_bytes())
    assert "not signed, and only files signed" in untrusted(unsigned)
    model = tmp_path / "model"
    model.write_bytes(payload_of(unsigned.read_bytes()))
    assert "not signed, and only" in untrusted(model)


def test_a_signature_holds_for_its_own_manifest_alone(
    signed_bundle: Path, make_bundle: MakeBundle
) -> None:
    kind: Any = signed_bundle.suffix[1:]
    signature = read(signed_bundle.read_bytes()).texts[NAMES[kind][2]]
    other = make_bundle(kind, name="other").read_bytes()
    payload = payload_of(other)
    texts = {**read(other).texts, NAMES[kind][2]: signature}
    signed_bundle.write_bytes(payload + texts_as_stored(kind, texts, len(payload)))
    Bundle.open(signed_bundle)  # the planted file is a sound Bundle
    assert "not signed with the trusted key" in untrusted(signed_bundle)


def test_no_byte_of_a_signed_file_can_be_changed(signed_bundle: Path) -> None:
    data = signed_bundle.read_bytes()
    positions = [*range(0, len(data), 41), *range(len(data) - 400, len(data))]
    if signed_bundle.suffix == ".tflite":  # every byte of the archive's records
        begin = read(data).payload[0][1]
        positions += [*range(begin, begin + 60), *range(len(data) - 22, len(data))]
    for position in positions:
        for bit in (1, 0x20):
            changed = bytearray(data)
            changed[position] ^= bit
            signed_bundle.write_bytes(bytes(changed))
            with pytest.raises(BundleError):
                Bundle.open(signed_bundle, trusted_key=PUBLIC)


def test_bytes_that_nothing_vouches_for_are_refused(make_bundle: MakeBundle) -> None:
    path = make_bundle("tflite")
    path.write_bytes(signed(path.read_bytes(), PRIVATE))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("extra.bin", b"not vouched for")
    Bundle.open(path)
    assert "does not vouch for" in untrusted(path)

    path = make_bundle("onnx")
    good = signed(path.read_bytes(), PRIVATE)
    entry = b"\x72\x06\x0a\x01k\x12\x01v"
    size = len(payload_of(good))
    overlong = good[:size] + b"\xf2\x00" + good[size + 1 :]  # field 14 in two bytes
    first = good[:2] + entry + good[2:]  # behind ir_version
    for data in (good + entry, first, good + b"\x72\x00", overlong):
        path.write_bytes(data)
        Bundle.open(path)
        assert "does not vouch for" in untrusted(path)
    path.write_bytes(good[:2] + good[size:] + good[2:size])  # the same records, metadata between
    Bundle.open(path)
    assert "does not vouch for" in untrusted(path)


def test_the_unused_bits_of_base64_are_not_free(signed_bundle: Path) -> None:
    data = signed_bundle.read_bytes()
    kind: Any = signed_bundle.suffix[1:]
    texts = dict(read(data).texts)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    text = texts[NAMES[kind][2]].decode()
    assert text.endswith("==")
    bent = text[:-3] + alphabet[alphabet.index(text[-3]) ^ 1] + "=="
    assert base64.b64decode(bent) == base64.b64decode(text)
    texts[NAMES[kind][2]] = bent.encode()
    payload = payload_of(data)
    signed_bundle.write_bytes(payload + texts_as_stored(kind, texts, len(payload)))
    assert "does not vouch for" in untrusted(signed_bundle)


def test_a_signed_manifest_of_another_payload_is_damaged(signed_bundle: Path) -> None:
    data = bytearray(signed_bundle.read_bytes())
    data[200] ^= 1
    signed_bundle.write_bytes(bytes(data))
    with pytest.raises(BundleError, match=r"changed after it was written|model|field"):
        Bundle.open(signed_bundle, trusted_key=PUBLIC)


def test_nothing_is_parsed_before_the_signature(make_bundle: MakeBundle) -> None:
    """A manifest that is no JSON at all: with the key, the complaint is of the signature."""
    path = make_bundle("onnx")
    data = path.read_bytes()
    payload = payload_of(data)
    texts = {**read(data).texts, "smidgen.manifest": b"{", "smidgen.signature": b"AAAA"}
    path.write_bytes(payload + texts_as_stored("onnx", texts, len(payload)))
    with pytest.raises(NotABundle, match="not JSON"):
        Bundle.open(path)
    untrusted(path)


def test_forms_of_a_trusted_key(signed_bundle: Path, tmp_path: Path) -> None:
    key = TrustedKey.of(PUBLIC)
    file = tmp_path / "release.pub"
    file.write_bytes(PUBLIC)
    for form in (PUBLIC, key.raw, key, file, str(file)):
        assert TrustedKey.of(form) == key
        Bundle.open(signed_bundle, trusted_key=form)
    file.write_bytes(key.raw)
    assert TrustedKey.of(file) == key
    assert public_key_of(PRIVATE) == key
    assert len(key.fingerprint) == 16


@pytest.mark.parametrize(
    "key",
    ["", b"", b"x" * 31, b"x" * 33, PRIVATE, "absent.pub", ".", "nul\0", 5, [],
     b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
     b"-----BEGIN PUBLIC KEY-----\n=\n-----END PUBLIC KEY-----\n"],
)  # fmt: skip
def test_things_that_are_no_key(signed_bundle: Path, key: Any) -> None:
    with pytest.raises(ArgumentInvalid) as caught:
        Bundle.open(signed_bundle, trusted_key=key)
    assert "\n" not in str(caught.value)


def test_private_keys_of_other_kinds_are_refused(make_bundle: MakeBundle) -> None:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ed25519, x25519

    data = make_bundle("onnx").read_bytes()
    pem, pkcs8 = form.Encoding.PEM, form.PrivateFormat.PKCS8
    other = x25519.X25519PrivateKey.generate().private_bytes(pem, pkcs8, form.NoEncryption())
    locked = ed25519.Ed25519PrivateKey.generate().private_bytes(
        pem, pkcs8, form.BestAvailableEncryption(b"secret")
    )
    for key in (b"", PUBLIC, b"x" * 32, other, locked):
        with pytest.raises(ArgumentInvalid):
            signed(data, key)
    with pytest.raises(NotABundle, match="export it first"):
        signed(payload_of(data), PRIVATE)


def test_without_the_package_one_line_names_the_extra(signed_bundle: Path) -> None:
    script = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from smidgen.runtime import Bundle\n"
        f"Bundle.open({str(signed_bundle)!r})\n"
        "try:\n"
        f"    Bundle.open({str(signed_bundle)!r}, trusted_key={PUBLIC!r})\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == (
        "SigningMissing signatures need the package cryptography, which is not installed: "
        'run `pip install "smidgen-runtime[sign]"`\n'
    )
