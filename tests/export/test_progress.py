"""Progress lines, and recipes that do not make sense."""

from __future__ import annotations

import io

import pytest

from smidgen.export.progress import ConsoleProgress, stage
from smidgen.export.recipe import ExportRecipe
from smidgen.runtime.errors import SchemaError
from smidgen.runtime.schema import build


def test_a_log_gets_one_line_per_stage_with_count_and_time():
    stream = io.StringIO()
    progress, seconds = ConsoleProgress(stream), {}
    with stage(progress, "judge int8 .onnx", seconds, 3):
        progress.advance(2)
        progress.advance(1)
    progress.note("done")
    first, second = stream.getvalue().splitlines()
    assert first.split()[:4] == ["export", "judge", "int8", ".onnx"]
    assert "3/3" in first
    assert second == "done"
    assert 0 <= seconds["judge int8 .onnx"] < 5


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"formats": []}, "at least one choice"),
        ({"schemes": ["int8", "int8"]}, "each named once"),
        ({"schemes": ["int7"]}, "did you mean 'int8'"),
        ({"max_drops": 1}, "did you mean 'max_drop'"),
        ({"max_drop": -1}, "allowed 0 to 100"),
        ({"name": "../up"}, "without folders"),
    ],
)
def test_bad_recipes_are_refused_in_one_line(mapping, message):
    with pytest.raises(SchemaError, match=message) as caught:
        build(ExportRecipe, mapping, where="export")
    assert "\n" not in str(caught.value)
