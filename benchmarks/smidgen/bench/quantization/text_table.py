"""A table as aligned text for a terminal, and as Markdown."""

from __future__ import annotations

from dataclasses import dataclass

_GAP = "  "


@dataclass(frozen=True)
class Table:
    """Cells of text under their headings; all rows are as long as ``headings``.

    The first column is aligned to the left, the others to the right.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def as_text(self) -> str:
        """Aligned columns, a line each."""
        columns = list(zip(self.headings, *self.rows))
        widths = [max(map(len, column)) for column in columns]
        lines = [
            _GAP.join(
                cell.rjust(width) if index else cell.ljust(width)
                for index, (cell, width) in enumerate(zip(cells, widths))
            ).rstrip()
            for cells in (self.headings, *self.rows)
        ]
        return "\n".join(lines) + "\n"

    def as_markdown(self) -> str:
        """The same for a document."""
        rule = "|---" + "|---:" * (len(self.headings) - 1) + "|"
        lines = [
            "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
            for cells in (self.headings, *self.rows)
        ]
        return "\n".join([lines[0], rule, *lines[1:]]) + "\n"
