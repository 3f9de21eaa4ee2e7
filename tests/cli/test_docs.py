"""The pages say what the command says: the generated reference, and the commands of the READMEs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from smidgen.cli import commands
from smidgen.runtime import command as runtime_command

REPO = Path(__file__).resolve().parents[2]
PAGES = (
    "README.md", "CONTRIBUTING.md", "docs/training.md", "docs/trust.md", "runtime/README.md",
    "examples/digits/README.md",
)  # fmt: skip
PLACEHOLDERS = {"RUN": "runs/x", "PHOTOS": "photos", "BUNDLE...": "a.tflite", "MODEL": "a.tflite"}


def command_lines(program: str) -> list[str]:
    """Every command of the pages that starts ``program``: indented lines and code spans."""
    found = []
    for page in PAGES:
        text = (REPO / page).read_text(encoding="utf-8")
        text = re.sub(r"\\\n\s*", "", text)  # a command goes on in the next line
        spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        indented = [line[4:] for line in text.splitlines() if line.startswith("    ")]
        for line in (*spans, *indented):
            words = re.split(r"\s#", line)[0].strip().removeprefix(".venv/bin/")
            if re.match(rf"{program} \S", words):
                found.append(words)
    return sorted(set(found))


def test_the_reference_is_what_help_prints(tmp_path: Path) -> None:
    script = REPO / "tools" / "write_commands.py"
    code = f"import runpy; print(runpy.run_path({str(script)!r})['commands_page'](), end='')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    committed = (REPO / "docs" / "commands.md").read_text(encoding="utf-8")
    assert done.stdout == committed, "docs/commands.md is stale: run `make docs`"


def test_the_pages_hold_commands() -> None:
    """The search itself can fail: it must find what is known to be there."""
    assert "smidgen run photos/ --image-size 160" in command_lines("smidgen")
    assert any("selftest" in line for line in command_lines("smidgen-runtime"))
    assert "make demo" in command_lines("make")


@pytest.mark.parametrize("line", command_lines("smidgen"))
def test_smidgen_commands_of_the_pages_parse(line: str) -> None:
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(line)[1:]]
    if words[0] in ("--help", "COMMAND"):
        return
    words = [word.removesuffix("...") for word in words]
    assert words[0] in commands.COMMANDS
    if "--help" not in words:
        commands.parser().parse_args(words)


def test_a_misspelt_flag_on_a_page_would_be_found() -> None:
    with pytest.raises(commands.UsageError):
        commands.parser().parse_args(["run", "photos/", "--image-sise", "160"])


@pytest.mark.parametrize("line", command_lines("smidgen-runtime"))
def test_runtime_commands_of_the_pages_parse(line: str) -> None:
    runtime_command.parser().parse_args(shlex.split(line)[1:])


@pytest.mark.parametrize("line", command_lines("make"))
def test_make_targets_of_the_pages_exist(line: str) -> None:
    makefile = (REPO / "Makefile").read_text(encoding="utf-8")
    for word in line.split()[1:]:
        if "=" not in word:
            assert re.search(rf"^{word}:", makefile, flags=re.MULTILINE), word
