"""Report: a pure function of Measurements and Verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smidgen.bench.measure import Failure, Sweep
from smidgen.bench.measurement import Measurement
from smidgen.bench.statistics import Ratio, median_ratio, percentile_ms
from smidgen.runtime.manifest import Verdict


@dataclass(frozen=True)
class ReportRow:
    """One Bundle. None stands for what was not measured (no gate, no image engine, no reference).

    ``inference_ratio`` compares with the float32 Bundle of the same model (weights and input size)
    in the same format.
    """

    bundle_file: str
    bundle_sha256: str
    model_format: str
    scheme: str
    engine: str
    verdict: Verdict | None
    file_bytes: int
    import_ms: float | None
    load_ms: float | None
    first_inference_ms: float | None
    decode_p50_ms: float | None
    decode_p90_ms: float | None
    preprocess_p50_ms: float | None
    preprocess_p90_ms: float | None
    inference_p50_ms: float | None
    inference_p90_ms: float | None
    whole_p50_ms: float | None
    whole_p90_ms: float | None
    inference_ratio: Ratio | None
    peak_rss_bytes: int | None
    rounds: int
    runs: int


@dataclass(frozen=True)
class Report:
    """The rows with what they have in common. ``machine`` is one line of text."""

    smidgen_version: str
    commit: str
    device_name: str
    host: str
    machine: str
    load_average_low: float
    load_average_high: float
    began_utc: str
    ended_utc: str
    threads: int
    warmup_runs: int
    rows: tuple[ReportRow, ...]
    failures: tuple[Failure, ...]


def report_of(sweep: Sweep) -> Report:
    """The report of one sweep; see ``make_report``."""
    return make_report(sweep.rows, sweep.verdicts, sweep.failures)


def make_report(
    measurements: Sequence[Measurement],
    verdicts: Mapping[str, Verdict | None],
    failures: Sequence[Failure] = (),
) -> Report:
    """Derive the table from the rows of one sweep.

    A Bundle that failed part of the way gets no row: nothing is averaged around a failure.
    """
    failed = {failure.bundle_sha256 for failure in failures if failure.bundle_sha256}
    grouped: dict[str, list[Measurement]] = {}
    for measurement in measurements:
        if measurement.bundle_sha256 not in failed:
            grouped.setdefault(measurement.bundle_sha256, []).append(measurement)
    groups = sorted(grouped.values(), key=lambda rows: _order(rows[0]))
    rows = tuple(
        _report_row(group, _reference(group[0], groups), verdicts.get(group[0].bundle_sha256))
        for group in groups
    )
    first = measurements[0] if measurements else None
    loads = [measurement.device.load_average_1min for measurement in measurements]
    return Report(
        smidgen_version=first.smidgen_version if first else "",
        commit=first.commit if first else "",
        device_name=first.device_name if first else "",
        host=first.device.host if first else "",
        machine=first.device.line() if first else "",
        load_average_low=min(loads, default=0.0),
        load_average_high=max(loads, default=0.0),
        began_utc=min((m.utc for m in measurements), default=""),
        ended_utc=max((m.utc for m in measurements), default=""),
        threads=first.sample.threads if first else 0,
        warmup_runs=first.sample.warmup_runs if first else 0,
        rows=rows,
        failures=tuple(failures),
    )


def _order(measurement: Measurement) -> tuple[object, ...]:
    """By model, then by format; in a format the float32 file comes first."""
    return (*_model(measurement), measurement.scheme != "float32", measurement.bundle_file)


def _reference(
    measurement: Measurement, groups: Sequence[Sequence[Measurement]]
) -> Sequence[Measurement]:
    """The rows of the float32 Bundle of the same model and format; empty where there is none."""
    wanted = ("float32", *_model(measurement))
    return next((group for group in groups if (group[0].scheme, *_model(group[0])) == wanted), ())


def _model(measurement: Measurement) -> tuple[str, int, int, str]:
    """What Bundles of one model in one format have in common, whatever they are called."""
    return (
        measurement.weights_sha256,
        measurement.input_height,
        measurement.input_width,
        measurement.model_format,
    )


def _report_row(
    group: Sequence[Measurement], reference: Sequence[Measurement], verdict: Verdict | None
) -> ReportRow:
    first = group[0]
    samples = [row.sample for row in group]
    decode = [sample.decode_ns for sample in samples]
    preprocess = [sample.preprocess_ns for sample in samples]
    inference = [sample.inference_ns for sample in samples]
    whole = [sample.whole_ns for sample in samples]
    return ReportRow(
        bundle_file=first.bundle_file,
        bundle_sha256=first.bundle_sha256,
        model_format=first.model_format,
        scheme=first.scheme,
        engine=f"{first.sample.engine} {first.sample.engine_version}".strip(),
        verdict=verdict,
        file_bytes=first.file_bytes,
        import_ms=percentile_ms([[sample.import_ns for sample in samples]], 50),
        load_ms=percentile_ms([[sample.load_ns for sample in samples]], 50),
        first_inference_ms=percentile_ms([[sample.first_inference_ns for sample in samples]], 50),
        decode_p50_ms=percentile_ms(decode, 50),
        decode_p90_ms=percentile_ms(decode, 90),
        preprocess_p50_ms=percentile_ms(preprocess, 50),
        preprocess_p90_ms=percentile_ms(preprocess, 90),
        inference_p50_ms=percentile_ms(inference, 50),
        inference_p90_ms=percentile_ms(inference, 90),
        whole_p50_ms=percentile_ms(whole, 50),
        whole_p90_ms=percentile_ms(whole, 90),
        inference_ratio=median_ratio(inference, [row.sample.inference_ns for row in reference]),
        peak_rss_bytes=max((s.peak_rss_bytes for s in samples if s.peak_rss_bytes), default=None),
        rounds=len(group),
        runs=sum(len(block) for block in inference),
    )
