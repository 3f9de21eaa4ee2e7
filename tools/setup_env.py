"""Make a virtual environment of this repository, or see that it is made already.

    python3.11 tools/setup_env.py [NAME] [--installer uv|pip] [--wheel FILE]

``make setup`` runs it. This file only asks whether the Python is the right one, in words that any
Python from 3.6 on understands; the work is in ``environments.py``.
"""

import sys

NEEDED = (3, 11)


def complaint(version, executable):  # type: (tuple[int, int], str) -> str
    """What is wrong with this Python, in one line; empty when nothing is."""
    if version == NEEDED:
        return ""
    return (
        f"smidgen: Python 3.11 is needed, and {executable} is {version[0]}.{version[1]}: install "
        "it (Debian and Ubuntu: python3.11 and python3.11-venv; macOS: python@3.11), or name it: "
        "make PYTHON=/path/to/python3.11 ..."
    )


def main():  # type: () -> int
    """Return the exit status: 0 made, 1 not made, 2 wrong use, 130 interrupted."""
    wrong = complaint(sys.version_info[:2], sys.executable)
    if wrong:
        sys.stderr.write(wrong + "\n")
        return 1
    import environments

    return environments.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
