"""The benchmark of streams: its four parts do the same work, and its arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from smidgen.bench.runtime_speed.stream import (
    DECODING,
    INFERENCE,
    ONE_BY_ONE,
    STREAM,
    as_markdown,
    main,
    overlap,
    parts,
)
from smidgen.runtime import Classifier
from smidgen.runtime.fake import FakeEngine

MakeBundle = Callable[..., Path]


def test_every_part_goes_through_all_pictures(make_bundle: MakeBundle, picture: Path) -> None:
    with Classifier(make_bundle(), backend=FakeEngine()) as classifier:
        assert [part.run() for part in parts(classifier, [str(picture)] * 7)] == [7] * 4


def test_the_slower_half_is_that_of_each_round() -> None:
    times = {
        DECODING: [[4_000_000], [9_000_000], [4_000_000]],
        INFERENCE: [[8_000_000], [3_000_000], [8_000_000]],
        ONE_BY_ONE: [[12_000_000], [13_500_000], [12_000_000]],
        STREAM: [[8_800_000], [9_900_000], [8_800_000]],
    }
    stream, one_by_one = overlap(times)
    assert stream is not None and one_by_one is not None
    assert [stream.value, one_by_one.value] == pytest.approx([1.1, 1.5])
    lines = as_markdown(times, ["a machine"]).splitlines()
    assert lines[-1] == "| stream | 8.80 | 1.10 [1.10, 1.10] |"
    assert lines[-2] == "| classify, one by one | 12.00 | 1.50 [1.50, 1.50] |"
    assert lines[-3] == "| inference alone | 8.00 |  |"


def test_the_command_prints_the_table(
    make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pil = pytest.importorskip("PIL.Image")
    for number in range(2):
        noise = np.random.default_rng(number).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        pil.fromarray(noise).save(tmp_path / f"{number}.jpg")
    status = main([str(make_bundle()), str(tmp_path), "--rounds", "1"])
    said = capsys.readouterr()
    assert [line.split(" | ")[0] for line in said.out.splitlines()[-4:]] == [
        f"| {name}" for name in (DECODING, INFERENCE, ONE_BY_ONE, STREAM)
    ]
    assert status == int("of its slower half, allowed 1.1" in said.err)


def test_there_must_be_pictures_and_a_model(
    make_bundle: MakeBundle, picture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(make_bundle()), str(picture.parent / "none")]) == 2
    assert "no .jpg or .jpeg file" in capsys.readouterr().err
    picture.rename(picture.with_suffix(".jpg"))
    assert main(["no-model.tflite", str(picture.parent)]) == 2
    assert "no-model.tflite" in capsys.readouterr().err
