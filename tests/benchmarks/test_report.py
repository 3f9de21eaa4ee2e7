"""The report as a pure function: golden text, golden cells, and what it never does."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from smidgen.bench.fake import FAKE_FACTS
from smidgen.bench.measure import Failure
from smidgen.bench.measurement import Measurement
from smidgen.bench.printers import COLUMNS, as_json, as_markdown, as_text
from smidgen.bench.report import Report, ReportRow, make_report
from smidgen.runtime.manifest import Verdict
from smidgen.runtime.timing import TimingSample


def row(file: str, number: int, inference_ms: float, **changes: Any) -> Measurement:
    runs = tuple(int(inference_ms * 1e6 * factor) for factor in (1.0, 1.01, 1.1))
    sample = TimingSample(
        engine="litert",
        engine_version="2.3.0",
        threads=1,
        warmup_runs=5,
        import_ns=150_000_000,
        load_ns=12_300_000,
        first_inference_ns=int(inference_ms * 2e6),
        decode_ns=(2_000_000,) * 3,
        preprocess_ns=(610_000, 620_000, 720_000),
        inference_ns=runs,
        whole_ns=runs,
        peak_rss_bytes=82_400_000,
        file_sha256=file,
        image="golden",
    )
    scheme = "int8" if "int8" in file else "float32"
    measurement = Measurement(
        sweep="s",
        utc=f"2026-11-22T07:00:0{number}Z",
        round=number,
        position=0,
        bundle_sha256=file,
        bundle_file=file,
        name=file.partition(".")[0],
        model_format=file.rpartition(".")[2],
        scheme=scheme,
        file_bytes=5_270_000 if scheme == "int8" else 18_570_123,
        weights_sha256="ww",
        input_height=224,
        input_width=224,
        smidgen_version="0.1.0",
        commit="0123456789abcdef",
        device_name="local",
        device=dataclasses.replace(FAKE_FACTS, load_average_1min=0.1 * number),
        sample=sample,
    )
    return dataclasses.replace(measurement, **changes)


VERDICT = Verdict("pass", 800, 90.1, 89.35, 0.75, -0.41, 1.94, 1.0, 13, 0.01, 0.4)
FILES = {"photos-float32.tflite": 10.8, "photos-int8.tflite": 4.7, "photos-float32.onnx": 10.4}


def report(rounds: int = 5, **changes: Any) -> Report:
    rows = [row(file, number, ms) for number in range(rounds) for file, ms in FILES.items()]
    verdicts: dict[str, Verdict | None] = dict.fromkeys(FILES, VERDICT)
    return make_report(rows, {**verdicts, **changes})


def cells(report: Report, file: str) -> list[str]:
    (found,) = [row for row in report.rows if row.bundle_file == file]
    return [column.cell(found) for column in COLUMNS]


def test_the_numbers_of_a_row() -> None:
    assert cells(report(), "photos-int8.tflite") == [
        "89.35", "0.75 [-0.4, 1.9]", "pass", "5270000", "12.3", "9.40",
        "0.62/0.72", "4.75/5.17", "0.44 [0.44, 0.44]", "82",
    ]  # fmt: skip


def test_the_reference_is_the_float32_file_of_the_same_format() -> None:
    made = report()
    ratios = {row.bundle_file: row.inference_ratio for row in made.rows}
    tflite, onnx = ratios["photos-int8.tflite"], ratios["photos-float32.onnx"]
    assert tflite is not None
    assert onnx is not None
    assert abs(tflite.value - 4.7 / 10.8) < 1e-6
    assert onnx.value == 1.0
    alone = make_report([row("photos-int8.onnx", n, 4.0) for n in range(3)], {})
    assert cells(alone, "photos-int8.onnx")[8] == "-"
    assert cells(alone, "photos-int8.onnx")[:3] == ["-", "-", "no gate"]
    other = [row("photos-float32.onnx", n, 9.0, input_height=160) for n in range(3)]
    other += [row("photos-int8.onnx", n, 4.0) for n in range(3)]
    assert cells(make_report(other, {}), "photos-int8.onnx")[8] == "-"


def test_a_difference_within_the_noise_is_a_tie() -> None:
    rows = [row("a-float32.onnx", n, 10.0) for n in range(5)]
    noisy = [9.0, 11.0, 9.1, 11.2, 10.0]
    rows += [row("a-int8.onnx", n, ms) for n, ms in enumerate(noisy)]
    cell = cells(make_report(rows, {}), "a-int8.onnx")[8]
    assert cell.startswith("tie [0.")
    steady = rows[:5] + [row("a-int8.onnx", n, 9.0) for n in range(5)]
    assert cells(make_report(steady, {}), "a-int8.onnx")[8] == "0.90 [0.90, 0.90]"
    short = [m for m in steady if m.round < 2]
    assert cells(make_report(short, {}), "a-int8.onnx")[8] == "0.90 [few rounds]"


def test_the_text_is_aligned_and_fits() -> None:
    text = as_text(report())
    assert text.splitlines()[:10] == [
        "smidgen 0.1.0 (commit 0123456789ab), 2026-11-22T07:00:00Z to 2026-11-22T07:00:04Z, "
        "local fake-host",
        "Fake CPU 1 GHz; fake64, 2 cores; 1.0 GiB; FakeOS 1; Python 3.11.0; governor performance; "
        "load 0.00 to 0.40",
        "1 thread; 5 rounds of 3 runs after 5 to warm up; litert 2.3.0",
        "",
        "Bundle          top-1              drop  verdict      file  load  first     pre ms"
        "   infer ms            x float  peak",
        "photos-...          %            points              bytes    ms     ms    p50/p90"
        "    p50/p90                       MB",
        "float32.onnx    89.35  0.75 [-0.4, 1.9]     pass  18570123  12.3   20.8  0.62/0.72"
        "  10.5/11.4                  1    82",
        "float32.tflite  89.35  0.75 [-0.4, 1.9]     pass  18570123  12.3   21.6  0.62/0.72"
        "  10.9/11.9                  1    82",
        "int8.tflite     89.35  0.75 [-0.4, 1.9]     pass   5270000  12.3   9.40  0.62/0.72"
        "  4.75/5.17  0.44 [0.44, 0.44]    82",
        "",
    ]
    assert max(len(line) for line in text.splitlines()) <= 120


def test_long_names_are_shortened_in_the_text_only() -> None:
    names = [f"a-very-long-name-of-a-model-{n}-of-many-int8.gate-failed.onnx" for n in ("x", "y")]
    rows = [row(name, number, 5.0) for name in names for number in range(3)]
    worst = dataclasses.replace(VERDICT, verdict="undecided", drop_points=-10.25)
    made = make_report(rows, dict.fromkeys(names, worst))
    table = [line for line in as_text(made).splitlines() if "undecided" in line]
    assert all("…" in line and len(line) <= 120 for line in table)
    assert all(name in as_markdown(made) for name in names)


def test_a_failed_bundle_has_no_numbers_and_is_named() -> None:
    rows = [row("a-float32.onnx", n, 10.0) for n in range(3)]
    rows += [row("a-int8.onnx", n, 5.0) for n in range(2)]
    made = make_report(rows, {}, [Failure("out/a-int8.onnx", "a-int8.onnx", "killed by SIGSEGV")])
    assert [row.bundle_file for row in made.rows] == ["a-float32.onnx"]
    assert as_text(made).splitlines()[-1] == "FAILED out/a-int8.onnx: killed by SIGSEGV"
    assert "FAILED" in as_markdown(made)
    nothing = make_report([], {}, made.failures)
    assert as_text(nothing).splitlines()[0] == "nothing was measured"


def test_markdown_has_a_cell_for_every_column() -> None:
    lines = [line for line in as_markdown(report()).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 3
    assert {line.count("|") for line in lines} == {len(COLUMNS) + 2}


def test_json_has_every_field_and_raw_samples_stay_out_of_it() -> None:
    parsed = json.loads(as_json(report()))
    assert set(parsed) == {field.name for field in dataclasses.fields(Report)}
    assert set(parsed["rows"][0]) == {field.name for field in dataclasses.fields(ReportRow)}
    assert parsed["rows"][2]["inference_p50_ms"] == 4.747
    assert "inference_ns" not in as_json(report())


def test_the_same_rows_in_another_order_give_the_same_report() -> None:
    rows = [row(file, number, ms) for number in range(5) for file, ms in FILES.items()]
    by_file = sorted(rows, key=lambda m: (m.bundle_file, m.round))
    assert as_json(make_report(by_file, {})) == as_json(make_report(rows, {}))
