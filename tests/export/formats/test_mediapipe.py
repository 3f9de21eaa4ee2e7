"""MediaPipe's ImageClassifier takes our TFLite Bundles unmodified, and says what our runtime says.

Needs an interpreter with the package mediapipe (510 MB) in an environment of its own, named by
SMIDGEN_TEST_MEDIAPIPE_PYTHON.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from smidgen.export.line import export
from smidgen.export.recipe import ExportPlan, ExportRecipe
from smidgen.runtime import Classifier

INTERPRETER = os.environ.get("SMIDGEN_TEST_MEDIAPIPE_PYTHON", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not INTERPRETER, reason="SMIDGEN_TEST_MEDIAPIPE_PYTHON names no Python with mediapipe"
    ),
]


@pytest.fixture(scope="module")
def bundles(float_model, tmp_path_factory):
    recipe = ExportPlan(ExportRecipe(formats=("tflite",), max_drop=20.0))
    return export(float_model, recipe, tmp_path_factory.mktemp("mediapipe")).bundles


@pytest.fixture(scope="module")
def squares(picture_folder, tmp_path_factory) -> list[Path]:
    """20 pictures of the input's own size, so that nobody resizes."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("squares")
    paths = []
    for path in sorted(picture_folder.iterdir())[:20]:
        paths.append(folder / path.name)
        with Image.open(path) as image:
            image.resize((32, 32)).save(paths[-1])
    return paths


@pytest.mark.parametrize("scheme", ["float32", "int8"])
def test_same_label_text_and_score_on_20_pictures(scheme, bundles, squares):
    path = next(bundle.path for bundle in bundles if bundle.scheme == scheme)
    script = Path(__file__).with_name("mediapipe_answers.py")
    done = subprocess.run(
        [INTERPRETER, str(script), str(path), *map(str, squares)],
        capture_output=True,
        text=True,
        check=False,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout)
    with Classifier(path) as classifier:
        ours = classifier.classify_batch([str(square) for square in squares])
    assert [label for label, _ in theirs] == [answer.label for answer in ours]
    assert len({answer.label for answer in ours}) >= 3  # a constant answer proves nothing
    difference = np.abs([a.score - score for a, (_, score) in zip(ours, theirs)])
    assert difference.max() <= (1e-3 if scheme == "float32" else 0.02)
