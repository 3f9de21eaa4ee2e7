"""``smidgen sign``: keys are never overwritten, files are replaced whole or not at all."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from smidgen.cli.main import run
from smidgen.runtime.bundle import Bundle
from smidgen.runtime.classifier import Classifier
from smidgen.runtime.errors import BundleUntrusted
from smidgen.runtime.selftest import selftest

pytest.importorskip("cryptography")
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def keys(tmp_path: Path, capsys: Capture) -> Path:
    assert run(["sign", "--new-key", str(tmp_path / "release")]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/release.key\n{tmp_path}/release.pub\n"
    return tmp_path / "release"


def test_only_the_owner_reads_the_private_key(keys: Path) -> None:
    modes = [stat.S_IMODE(keys.with_suffix(end).stat().st_mode) for end in (".key", ".pub")]
    assert modes == [0o600, 0o644]
    assert keys.with_suffix(".key").read_text().startswith("-----BEGIN PRIVATE KEY-----\n")
    assert keys.with_suffix(".pub").read_text().startswith("-----BEGIN PUBLIC KEY-----\n")


@pytest.mark.parametrize("there", [".key", ".pub"])
def test_keys_are_never_overwritten(keys: Path, there: str, capsys: Capture) -> None:
    other = {".key": ".pub", ".pub": ".key"}[there]
    before = keys.with_suffix(there).read_bytes()
    keys.with_suffix(other).unlink()
    assert run(["sign", "--new-key", str(keys)]) == 1
    assert f"{keys}{there} exists, and keys are never overwritten" in capsys.readouterr().err
    assert keys.with_suffix(there).read_bytes() == before
    assert sorted(file.name for file in keys.parent.iterdir()) == [f"release{there}"]


def test_signing_in_place_and_elsewhere(
    keys: Path, make_bundle: Callable[..., Path], capsys: Capture
) -> None:
    pytest.importorskip("onnxruntime")
    path = make_bundle()
    plain = path.read_bytes()
    out = path.parent / "new" / "signed.onnx"
    arguments = ["sign", str(path), "--key", str(keys.with_suffix(".key"))]
    assert run([*arguments, "--out", str(out)]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{out}\n"
    assert shown.err.startswith("signed with the key ")
    assert path.read_bytes() == plain
    assert run(arguments) == 0
    assert path.read_bytes() == out.read_bytes()
    assert run(arguments) == 0  # again
    assert path.read_bytes() == out.read_bytes()
    public = keys.with_suffix(".pub")
    assert Bundle.open(path, trusted_key=public).file_bytes == len(plain) + 111
    with Classifier(path) as classifier:
        assert selftest(classifier).passed
    assert run(["sign", "--new-key", str(keys.parent / "other")]) == 0
    with pytest.raises(BundleUntrusted):
        Bundle.open(path, trusted_key=keys.parent / "other.pub")


def test_a_file_that_cannot_be_signed_stays_as_it_is(
    keys: Path, make_bundle: Callable[..., Path], capsys: Capture
) -> None:
    path = make_bundle()
    damaged = path.read_bytes()[:-9]
    path.write_bytes(damaged)
    assert run(["sign", str(path), "--key", str(keys.with_suffix(".key"))]) == 1
    assert path.read_bytes() == damaged
    assert capsys.readouterr().err.count("\n") == 1


def test_wrong_command_lines(keys: Path, make_bundle: Callable[..., Path], capsys: Capture) -> None:
    path, key = str(make_bundle()), str(keys.with_suffix(".key"))
    before = Path(path).read_bytes()
    wrong: dict[tuple[str, ...], tuple[int, str]] = {
        (): (2, "expected a Bundle and --key FILE"),
        (path,): (2, "expected a Bundle and --key FILE"),
        ("--new-key", "x", "--key", key): (2, "--new-key stands alone"),
        (path, "--key", str(keys.with_suffix(".pub"))): (1, "not a private key"),
        (path, "--key", str(keys.parent / "absent")): (1, "No such file or directory"),
        ("--new-key", str(keys.parent / "absent" / "x")): (1, "cannot write"),
    }
    for arguments, (status, said) in wrong.items():
        assert run(["sign", *arguments]) == status
        shown = capsys.readouterr()
        assert said in shown.err
        assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert Path(path).read_bytes() == before
