"""Bundles of a small network, for tests of what other programs make of them."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def small_bundles(float_model, tmp_path_factory) -> dict[tuple[str, str], Path]:
    """Format and scheme to a Bundle of the session's float model: float32 and int8 of each."""
    from smidgen.export.line import export
    from smidgen.export.recipe import ExportPlan, ExportRecipe

    plan = ExportPlan(ExportRecipe(max_drop=20.0))
    made = export(float_model, plan, tmp_path_factory.mktemp("small-bundles"))
    assert not made.failures
    return {(bundle.model_format, bundle.scheme): bundle.path for bundle in made.bundles}
