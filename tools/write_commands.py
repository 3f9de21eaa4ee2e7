"""Write docs/commands.md from the parser's own help: `make docs`. A test compares the two."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path

WIDTH = 96
TARGET = Path(__file__).resolve().parents[1] / "docs" / "commands.md"


def commands_page() -> str:
    """The whole page: ``smidgen --help`` and each command's, in the order of the table."""
    os.environ["COLUMNS"] = str(WIDTH)  # what argparse wraps at
    from smidgen.cli.commands import COMMANDS

    titles = [[], *([name] for name in COMMANDS)]
    sections = [_section(["smidgen", *words], _help(words)) for words in titles]
    return "\n".join(["# Commands\n\nMade by `make docs` from `--help`; do not edit.\n", *sections])


def _help(words: list[str]) -> str:
    """What ``smidgen WORDS --help`` prints."""
    from smidgen.cli.commands import parser

    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        parser().parse_args([*words, "--help"])
    return text.getvalue()


def _section(words: list[str], text: str) -> str:
    return f"## {' '.join(words)}\n\n```text\n{text.rstrip()}\n```\n"


if __name__ == "__main__":
    from smidgen.runtime.files import write_text

    write_text(TARGET, commands_page())
    print(TARGET, file=sys.stderr)
