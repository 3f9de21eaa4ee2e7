"""A share of the seeded fuzzing of pictures; image_fuzz.py runs the whole as a command."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("PIL.Image")


def fuzzer() -> Any:
    spec = importlib.util.spec_from_file_location(
        "image_fuzz", Path(__file__).with_name("image_fuzz.py")
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_cases_are_a_function_of_seed_and_number() -> None:
    fuzz = fuzzer()
    files = fuzz.seeds()
    assert [fuzz.case(files, 1, n) for n in range(20)] == [
        fuzz.case(files, 1, n) for n in range(20)
    ]
    assert {fuzz.answer(data) for data in files} == {"pixels"}
    assert fuzz.answer(b"GIF89a") == "ImageUnreadable"


@pytest.mark.slow
def test_mutated_pictures_end_in_pixels_or_our_own_errors() -> None:
    found = fuzzer().fuzz(seed=1, cases=10_000, seconds=45)
    assert found["crashes"] == [] and found["hangs"] == [] and found["wrong"] == []
    assert found["peak_mb"] <= 1000
    assert found["cases"] >= 50
    assert {"pixels", "ImageUnreadable"} <= set(found["answers"])
