"""What an installation takes on the disk: packages with all that they need, from their files."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from smidgen.bench.errors import ContenderFailed

PACKAGES = ("smidgen-runtime", "ai-edge-litert", "numpy", "pillow")

_SCRIPT = """
import importlib.metadata as metadata, json, re, sys
sizes, wanted = {}, list(sys.argv[1:])
while wanted:
    name = re.sub("[-_.]+", "-", wanted.pop()).lower()
    if name in sizes:
        continue
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        sizes[name] = None
        continue
    paths = [found.locate_file(one) for one in found.files or ()]
    sizes[name] = sum(path.stat().st_size for path in paths if path.is_file())
    for line in found.requires or ():
        requirement, _, marker = line.partition(";")
        if "extra" not in marker:
            needed = re.match(r"[A-Za-z0-9._-]+", requirement.strip()).group()
            conditional = bool(marker.strip())
            try:
                metadata.distribution(needed)
            except metadata.PackageNotFoundError:
                if conditional:  # for another Python or system
                    continue
            wanted.append(needed)
print(json.dumps(sizes))
"""


def installed_bytes(python: Path, packages: tuple[str, ...] = PACKAGES) -> dict[str, int]:
    """Bytes of the files of ``packages`` and of all that they require, by package.

    Raises ContenderFailed: one is not installed for ``python``.
    """
    done = subprocess.run(
        [str(python), "-P", "-c", _SCRIPT, *packages],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise ContenderFailed(f"installed size: {lines[-1]}")
    sizes: dict[str, int | None] = json.loads(done.stdout)
    absent = sorted(name for name, size in sizes.items() if size is None)
    if absent:
        raise ContenderFailed(f"installed size: {python} has no {', '.join(absent)}")
    return {name: size for name, size in sizes.items() if size is not None}
