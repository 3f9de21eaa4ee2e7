"""ONNX Runtime for Node in build/node-openers, as another reader of our files in tests.

``python tools/node_openers.py`` installs what tests/export/formats/node/package-lock.json pins, and
does nothing where that is there already. Where npm is missing it says so and ends well: the tests
that need it skip.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
SOURCE = REPO / "tests" / "export" / "formats" / "node"
FOLDER = REPO / "build" / "node-openers"
LOCK = "package-lock.json"
_INSTALL = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent")


def ensure(source: Path = SOURCE, folder: Path = FOLDER) -> int:
    """Install into ``folder`` unless its copy of the lock, written last, is the one in ``source``.

    Returns the exit status: 0 also where there is no npm; npm's own where it failed.
    """
    wanted, stamp = (source / LOCK).read_bytes(), folder / "installed-lock.json"
    if stamp.is_file() and stamp.read_bytes() == wanted:
        return 0
    if shutil.which("npm") is None:
        print("smidgen: no npm here: the tests of ONNX Runtime in Node will skip", file=sys.stderr)
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    for name in ("package.json", LOCK):
        shutil.copyfile(source / name, folder / name)
    print(f"smidgen: {folder.name}: ONNX Runtime for Node (with npm)", file=sys.stderr)
    done = subprocess.run(_INSTALL, cwd=folder, check=False)
    if done.returncode != 0:
        print("smidgen: npm could not install it; mend that and run again", file=sys.stderr)
        return done.returncode
    stamp.write_bytes(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(ensure())
