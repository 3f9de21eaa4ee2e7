"""Make a virtual environment of this repository, or see that it is made already.

    python3.11 tools/setup_env.py [NAME] [--installer uv|pip] [--wheel FILE]

``make setup`` runs it. This file only asks whether the Python is the right one, in words that any
Python from 3.6 on understands; the work is in ``environments.py``.
"""

import sys

NEEDED = (3, 11)


def main():  # type: () -> int
    """Return the exit status: 0 made, 1 not made, 2 wrong use, 130 interrupted."""
    if sys.version_info[:2] != NEEDED:
        found = f"{sys.executable} is {sys.version_info[0]}.{sys.version_info[1]}"
        sys.stderr.write(
            f"smidgen: Python 3.11 is needed, and {found}: install it (Debian and Ubuntu: "
            "python3.11 and python3.11-venv; macOS: python@3.11), or name it: "
            "make PYTHON=/path/to/python3.11 setup\n"
        )
        return 1
    import environments

    return environments.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
