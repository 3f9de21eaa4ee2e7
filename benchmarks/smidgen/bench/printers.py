"""A Report as text for a terminal, as Markdown, and as JSON.

The columns of both tables are named once, in ``COLUMNS``; JSON is the Report's own fields.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from smidgen.bench.report import Report, ReportRow
from smidgen.runtime.schema import as_mapping

TEXT_WIDTH = 120
_LEAST_NAME_WIDTH = len("float32.tflite")
_GAP = "  "


@dataclass(frozen=True)
class Column:
    """One column: two lines of heading, and how a row's cell is written."""

    heading: str
    unit: str
    cell: Callable[[ReportRow], str]


def as_text(report: Report, *, width: int = TEXT_WIDTH) -> str:
    """Aligned columns of at most ``width`` characters, below the machine that they hold for.

    Names lose their common beginning (shown once above the table), and their middle where the
    table would be too wide.
    """
    lines = list(_head(report))
    if report.rows:
        prefix = _common_prefix([row.bundle_file for row in report.rows])
        names = [row.bundle_file[len(prefix) :] for row in report.rows]
        lines += ["", *_aligned(report.rows, names, prefix, width), "", *LEGEND]
    lines += _failure_lines(report)
    return _text(lines)


def as_markdown(report: Report) -> str:
    """The same table for a README or an issue, with whole names."""
    lines = [f"{line}  " for line in _head(report)]
    if report.rows:
        headings = ["Bundle", *(f"{c.heading} {c.unit}".strip() for c in COLUMNS)]
        lines += ["", _markdown_row(headings), "|---" + "|---:" * len(COLUMNS) + "|"]
        for row in report.rows:
            lines.append(_markdown_row([row.bundle_file, *(c.cell(row) for c in COLUMNS)]))
        lines += ["", *LEGEND]
    lines += _failure_lines(report)
    return _text(lines)


def as_json(report: Report) -> str:
    """Every field of the Report, indented, in the order of the dataclass."""
    return json.dumps(as_mapping(report), indent=2) + "\n"


LEGEND = (
    "drop: points of top-1 lost against the float model [95 % interval]; verdict: of the gate.",
    "load: median ms to read, check and load the file; first: of the first inference after that;",
    "pre: resize and crop, without decoding; MB: peak memory of the whole process (10^6 bytes);",
    "x float: median inference over that of the float32 file of the same format [95 % interval],",
    "tie: the interval contains 1.",
)


def _head(report: Report) -> Sequence[str]:
    if not report.rows:
        return ["nothing was measured"]
    commit = f" (commit {report.commit[:12]}{_dirty(report.commit)})" if report.commit else ""
    engines = ", ".join(sorted({row.engine for row in report.rows}))
    rounds = max(row.rounds for row in report.rows)
    runs = max(row.runs for row in report.rows) // rounds
    load = f"{report.load_average_low:.2f} to {report.load_average_high:.2f}"
    return [
        f"smidgen {report.smidgen_version}{commit}, {report.began_utc} to {report.ended_utc}, "
        f"{report.device_name} {report.host}",
        f"{report.machine}; load {load}",
        f"{_count(report.threads, 'thread')}; {_count(rounds, 'round')} of {_count(runs, 'run')} "
        f"after {report.warmup_runs} to warm up; {engines}",
    ]


def _text(lines: Sequence[str]) -> str:
    """The lines as text that UTF-8 can hold: bytes of file names that are not, as ``\\udcxx``."""
    text = "\n".join(lines) + "\n"
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def _dirty(commit: str) -> str:
    return " + changes" if commit.endswith("-dirty") else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _aligned(
    rows: Sequence[ReportRow], names: Sequence[str], prefix: str, width: int
) -> Sequence[str]:
    cells = [[column.heading, column.unit] for column in COLUMNS]
    for column, lines in zip(COLUMNS, cells):
        lines.extend(column.cell(row) for row in rows)
    widths = [max(len(text) for text in lines) for lines in cells]
    room = max(_LEAST_NAME_WIDTH, width - sum(widths) - len(_GAP) * len(widths))
    left = [_shortened(text, room) for text in ("Bundle", prefix and f"{prefix}...", *names)]
    name_width = max(len(text) for text in left)
    return [
        _GAP.join(
            [
                name.ljust(name_width),
                *(lines[index].rjust(width) for lines, width in zip(cells, widths)),
            ]
        ).rstrip()
        for index, name in enumerate(left)
    ]


def _common_prefix(names: Sequence[str]) -> str:
    """What all names begin with, up to its last dash, where there are at least two names."""
    if len(names) < 2:
        return ""
    first, last = min(names), max(names)  # what these two share, all between them share
    length = next((i for i, pair in enumerate(zip(first, last)) if pair[0] != pair[1]), len(first))
    shared = first[:length]
    return shared[: shared.rfind("-") + 1]


def _shortened(text: str, room: int) -> str:
    if len(text) <= room:
        return text
    tail = (room - 1) // 2
    return text[: room - 1 - tail] + "…" + text[len(text) - tail :]


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _failure_lines(report: Report) -> Sequence[str]:
    lines = [f"FAILED {failure.bundle_file}: {failure.reason}" for failure in report.failures]
    return ["", *lines] if lines else []


def _top1(row: ReportRow) -> str:
    return f"{row.verdict.top1_percent:.2f}" if row.verdict else "-"


def _drop(row: ReportRow) -> str:
    if row.verdict is None:
        return "-"
    v = row.verdict
    return f"{v.drop_points:.2f} [{v.drop_low_points:.1f}, {v.drop_high_points:.1f}]"


def _verdict(row: ReportRow) -> str:
    return row.verdict.verdict if row.verdict else "no gate"


def _ms(value: float | None) -> str:
    """Three significant digits, without an exponent."""
    if value is None:
        return "-"
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _pair(low: float | None, high: float | None) -> str:
    return "-" if low is None and high is None else f"{_ms(low)}/{_ms(high)}"


def _megabytes(row: ReportRow) -> str:
    return "-" if row.peak_rss_bytes is None else f"{row.peak_rss_bytes / 1e6:.0f}"


def _ratio(row: ReportRow) -> str:
    ratio = row.inference_ratio
    if row.scheme == "float32":
        return "1"
    if ratio is None:
        return "-"
    if ratio.low is None or ratio.high is None:
        return f"{ratio.value:.2f} [few rounds]"
    value = "tie" if ratio.is_tie else f"{ratio.value:.2f}"
    return f"{value} [{ratio.low:.2f}, {ratio.high:.2f}]"


COLUMNS = (
    Column("top-1", "%", _top1),
    Column("drop", "points", _drop),
    Column("verdict", "", _verdict),
    Column("file", "bytes", lambda row: str(row.file_bytes)),
    Column("load", "ms", lambda row: _ms(row.load_ms)),
    Column("first", "ms", lambda row: _ms(row.first_inference_ms)),
    Column("pre ms", "p50/p90", lambda row: _pair(row.preprocess_p50_ms, row.preprocess_p90_ms)),
    Column("infer ms", "p50/p90", lambda row: _pair(row.inference_p50_ms, row.inference_p90_ms)),
    Column("x float", "", _ratio),
    Column("peak", "MB", _megabytes),
)
