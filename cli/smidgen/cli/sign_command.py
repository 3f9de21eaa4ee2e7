"""``smidgen sign``: sign a Bundle for devices that run nothing else, or make the keys for that."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from pathlib import Path

from smidgen.cli.errors import UsageError
from smidgen.runtime.bundle import Bundle
from smidgen.runtime.errors import OutputError
from smidgen.runtime.files import output_error, replacing

SUMMARY = "sign a model file, so that devices with your key run nothing else"
DESCRIPTION = """\
Sign a Bundle with an Ed25519 private key, in place or into another file; an earlier signature is
replaced. The file stays one that every runtime reads. On the device,
Classifier(path, trusted_key="NAME.pub") runs what was signed with NAME.key, and nothing else.
Whoever has NAME.key can sign: keep it off the devices. Needs the package cryptography."""
EXAMPLES = """\
  smidgen sign --new-key release            makes release.key and release.pub
  smidgen sign photos-int8.tflite --key release.key
  smidgen sign photos-int8.onnx --key release.key --out signed/photos-int8.onnx"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The Bundle and the key, or the name of a new pair of keys."""
    parser.add_argument("bundle", metavar="BUNDLE", nargs="?", help="a .tflite or .onnx Bundle")
    parser.add_argument("--key", metavar="FILE", help="private key: PEM (PKCS 8), no password")
    parser.add_argument("--out", metavar="FILE", help="the signed file (default: in place)")
    parser.add_argument(
        "--new-key", metavar="NAME",
        help="make a pair of keys: NAME.key, which only you may read, and NAME.pub for devices; "
        "files that exist are never overwritten",
    )  # fmt: skip


def execute(arguments: argparse.Namespace) -> int:
    """Sign, or make keys; prints the files that it wrote."""
    if arguments.new_key is not None:
        if arguments.bundle or arguments.key or arguments.out:
            raise UsageError("--new-key stands alone: make the keys first, then sign with --key")
        return _make_keys(arguments.new_key)
    if not arguments.bundle or not arguments.key:
        raise UsageError(
            "expected a Bundle and --key FILE, or --new-key NAME; see `smidgen sign --help`"
        )
    return _sign(arguments.bundle, arguments.key, arguments.out or arguments.bundle)


def _sign(path: str, key_path: str, out: str) -> int:
    from smidgen.export.signing import public_key_of, signed
    from smidgen.runtime.signatures import read_key_file

    private_pem = read_key_file(key_path)
    public_key = public_key_of(private_pem)
    data = signed(Bundle.open(path).data, private_pem)
    with replacing(out) as temporary:
        temporary.write_bytes(data)
        Bundle.open(temporary, trusted_key=public_key)
    print(f"signed with the key {public_key.fingerprint}", file=sys.stderr)
    print(out)
    return 0


def _make_keys(name: str) -> int:
    from smidgen.export.signing import new_key_pair

    files = [Path(f"{name}.key"), Path(f"{name}.pub")]
    for file in files:
        if file.exists() or file.is_symlink():
            raise _exists(file)
    contents = new_key_pair()
    written: list[Path] = []
    try:
        for file, content, mode in zip(files, contents, (0o600, 0o644), strict=True):
            _write_new(file, content, mode)
            written.append(file)
    except BaseException:  # one half of a pair is of no use, and would be in the way
        for file in written:
            file.unlink()
        raise
    print("\n".join(str(file) for file in files))
    return 0


def _write_new(file: Path, content: bytes, mode: int) -> None:
    """The whole file under its name, or nothing; never over another one."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
        temporary = Path(name)
        try:
            with open(handle, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(handle)
            temporary.chmod(mode)
            os.link(temporary, file)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
    except FileExistsError as error:
        raise _exists(file) from error
    except OSError as error:
        raise output_error(file, error) from error


def _exists(file: Path) -> OutputError:
    return OutputError(f"{file} exists, and keys are never overwritten; choose another name")
