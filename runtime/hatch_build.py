"""Makes the wheel small: without comments, and with the docstrings of what users call alone.

A board downloads, stores and reads these files; who wants to read the code has the sdist, whose
files are whole. Nothing moves: every statement keeps its line and column, so that a traceback from
a device fits the sources.
"""

from __future__ import annotations

import ast
import io
import shutil
import tempfile
import tokenize
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

DOCUMENTED = frozenset({"Classifier", "ModelStore"})
"""Classes and functions that keep their docstrings, those of public methods included."""


class SmallWheel(BuildHookInterface):
    """Puts shortened copies of the modules in the place of the modules."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """See hatchling: ``version`` is ``"editable"`` for an installation that is worked on."""
        if version == "editable":
            return
        root = Path(self.root)
        self._folder = tempfile.mkdtemp(prefix="smidgen-wheel-")
        for path in sorted((root / "smidgen").rglob("*.py")):
            name = path.relative_to(root)
            copy = Path(self._folder, name)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(shortened(path.read_text(encoding="utf-8")), encoding="utf-8")
            build_data["force_include"][str(copy)] = name.as_posix()

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """See hatchling."""
        del version, build_data, artifact_path
        shutil.rmtree(getattr(self, "_folder", ""), ignore_errors=True)


def shortened(source: str) -> str:
    """``source`` with empty lines for comments and for all docstrings but those to be kept."""
    lines = source.split("\n")
    for text, is_alone in _strings_to_drop(ast.parse(source), is_kept=False):
        for number in range(text.lineno - 1, text.end_lineno or text.lineno):
            lines[number] = ""
        if is_alone:
            lines[text.lineno - 1] = " " * text.col_offset + "..."
    for token in tokenize.generate_tokens(io.StringIO("\n".join(lines)).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip()
    return "\n".join(lines)


def _strings_to_drop(node: Any, *, is_kept: bool) -> list[tuple[ast.Expr, bool]]:
    """The statements that are a text alone, and whether each is all that its block has."""
    found = []
    for child in node.body:
        if isinstance(child, (ast.ClassDef, ast.FunctionDef)):
            is_method = is_kept and isinstance(node, ast.ClassDef)
            is_public = not child.name.startswith("_") or child.name == "__init__"
            keeps = child.name in DOCUMENTED or (is_method and is_public)
            found += _strings_to_drop(child, is_kept=keeps)
        elif not is_kept and _is_text(child):
            found.append((child, len(node.body) == 1))
    return found


def _is_text(node: ast.stmt) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)
