"""The Node packages of the openers: pinned by hash, from whichever registry npm is told to use."""

from __future__ import annotations

import json
from pathlib import Path

from node_openers import LOCK, ensure

SOURCE = Path(__file__).parent / "node"


def test_the_lock_pins_hashes_and_names_no_address():
    text = (SOURCE / LOCK).read_text()
    assert "://" not in text
    packages = {name: entry for name, entry in json.loads(text)["packages"].items() if name}
    assert len(packages) == 18
    for entry in packages.values():
        assert entry["integrity"].startswith("sha512-")
        assert "resolved" not in entry


def test_what_is_installed_is_not_installed_again(tmp_path):
    (tmp_path / "installed-lock.json").write_bytes((SOURCE / LOCK).read_bytes())
    assert ensure(SOURCE, tmp_path) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["installed-lock.json"]
