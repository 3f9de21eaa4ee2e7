"""The model card: a golden file, what it must say, and that it is a pure function."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from smidgen.export.formats.compressed import gzip_bytes
from smidgen.export.result import ExportedBundle, ExportResult, Failure
from smidgen.export.seeing.model_card import (
    CardFile,
    ClassImages,
    ModelCard,
    TrainingFacts,
    model_card,
)
from smidgen.export.seeing.model_card_file import write_model_card
from smidgen.export.seeing.model_card_text import as_markdown
from smidgen.runtime.manifest import (
    ClassAnswers,
    Manifest,
    PassRecord,
    Preprocessing,
    Provenance,
    TensorSpec,
    Verdict,
)
from smidgen.train.seeing.evaluation import ClassMetrics, Evaluation

GOLDEN = Path(__file__).with_name("model_card.golden.md")
LABELS = ("oak", "élan", "zebra_crossing")
VERDICT = Verdict(
    "pass", 300, 90.0, 89.67, 0.33, -0.52, 1.19, 1.5, 5, 0.004, 0.081, engine="litert 2.3.0",
    lost=3, gained=2, mcnemar_p=1.0, confidence_shift_points=-0.4,
    worst_class=ClassAnswers("élan", 40, 35, 33), reference_calibration_error_percent=2.1,
    calibration_error_percent=2.4,
)  # fmt: skip
MANIFEST = Manifest(
    name="leaves-int8",
    model_format="tflite",
    scheme="int8",
    labels=LABELS,
    preprocessing=Preprocessing(width=160, height=160, crop_fraction=0.875),
    input=TensorSpec("image", (1, 160, 160, 3), "uint8", "NHWC", 0.0, 255.0),
    output=TensorSpec("probabilities", (1, 3), "uint8", "NC", 0.0, 255 / 256, scale=1 / 256),
    provenance=Provenance(
        created_utc="2026-11-01T00:00:00Z",
        backbone="efficientnet-lite0",
        source="leaves",
        recipe_toml="",
        weights_sha256="ab" * 32,
        data_sha256="cd" * 32,
        calibration_sha256="ef" * 32,
        calibration_images=200,
        passes=(
            PassRecord("channels", {"keep": "0.5", "multiply_adds": "192 million"}),
            PassRecord("quantize", {"calibrator": "mse"}),
        ),
        commit="0123456789",
        versions={"keras": "3.15.1"},
    ),
    payload_sha256="",
    minimum_runtime={"tflite": "2.3.0"},
    verdict=VERDICT,
)
FLOAT = dataclasses.replace(
    MANIFEST,
    name="leaves-float32",
    model_format="onnx",
    scheme="float32",
    provenance=dataclasses.replace(
        MANIFEST.provenance, calibration_images=0, calibration_sha256="",
        passes=MANIFEST.provenance.passes[:1],
    ),
    minimum_runtime={"onnxruntime": "1.17"},
    verdict=Verdict(
        "undecided", 300, 90.0, 89.0, 1.0, -0.2, 2.2, 1.5, 7, 0.01, 0.2, engine="onnxruntime 1.31",
        images_to_decide=2400,
    ),
)  # fmt: skip
TRAINING = TrainingFacts(
    run="leaves",
    task="classes",
    images={"train": 900, "validation": 100, "test": 300},
    skipped=2,
    classes=(
        ClassImages("oak", 500, 200),
        ClassImages("élan", 300, 80),
        ClassImages("zebra_crossing", 100, 20),
    ),
    epochs=12,
    best_validation_percent=91.0,
    test=Evaluation(
        images=300, top1_percent=90.0, top1_low_percent=86.1, top1_high_percent=92.9, loss=0.3,
        confusion=(), macro_f1_percent=88.5, calibration_error_percent=2.1,
        classes=(
            ClassMetrics("oak", 200, 95.0, 96.0, 92.3, 98.0, 95.5),
            ClassMetrics("élan", 80, 80.0, 87.5, 78.5, 93.1, 83.6),
            ClassMetrics("zebra_crossing", 20, 66.7, 40.0, 21.9, 61.3, 50.0),
        ),
    ),
    machine="Linux x86_64",
    start_weights_sha256="98" * 32,
    settings=("model: backbone efficientnet-lite0", "schedule: head_epochs 12, ema 0.0"),
)  # fmt: skip
CARD = ModelCard(
    files=(
        CardFile("leaves-int8.tflite", True, 2_400_000, 1_900_000, "12" * 32, MANIFEST),
        CardFile("leaves-float32.onnx", True, 9_300_000, 8_600_000, "34" * 32, FLOAT),
    ),
    failures=(Failure("onnx", "int8", "operator MEAN has no ONNX form"),),
    training=TRAINING,
    versions={"numpy": "2.4.6"},
)


def test_the_golden_card() -> None:
    assert as_markdown(CARD) == GOLDEN.read_text(encoding="utf-8")


def test_another_figure_makes_another_card() -> None:
    """The comparison above can fail."""
    verdict = dataclasses.replace(VERDICT, drop_points=0.34)
    manifest = dataclasses.replace(MANIFEST, verdict=verdict)
    changed = dataclasses.replace(CARD.files[0], manifest=manifest)
    other = dataclasses.replace(CARD, files=(changed, *CARD.files[1:]))
    assert as_markdown(other) != as_markdown(CARD)


@pytest.mark.parametrize(
    "section",
    [
        "Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data",
        "Quantitative analyses", "Ethical considerations", "Caveats and recommendations",
    ],
)  # fmt: skip
def test_the_sections_are_those_of_the_paper(section: str) -> None:
    assert f"\n## {section}\n\n" in as_markdown(CARD)


def test_limits_are_said() -> None:
    text = as_markdown(CARD)
    assert "300 held-out answers are few" in text
    assert "The class with the fewest images is zebra_crossing: 100 to train on, 20 to" in text
    assert "1 of 3 classes have fewer than 50 test images" in text
    assert "leaves-float32.onnx did not pass its gate: undecided; about 2,400 images" in text
    assert "int8 .onnx could not be made: operator MEAN has no ONNX form" in text


def test_a_card_without_a_run() -> None:
    text = as_markdown(dataclasses.replace(CARD, training=None))
    assert "what it was trained on is not recorded here" in text
    assert text.startswith("# Model card: leaves\n")
    unlabelled = dataclasses.replace(VERDICT, truth="reference")
    files = (dataclasses.replace(CARD.files[0], manifest=with_verdict(unlabelled)),)
    text = as_markdown(ModelCard(files))
    assert "answers as the float model does" in text


def test_temperature_and_threshold_are_said_of_their_files() -> None:
    assert "temperature" not in as_markdown(CARD)
    decided = dataclasses.replace(MANIFEST, temperature=1.3125, abstain_below=0.62)
    card = ModelCard((dataclasses.replace(CARD.files[0], manifest=decided), *CARD.files[1:]))
    text, name = as_markdown(card), CARD.files[0].file
    assert (
        "- Probabilities are shown after a temperature of 1.31, fitted on the validation images "
        f"({name}).\n- Answers with a probability below 0.62 abstain ({name}).\n"
    ) in text
    first = card.as_mapping()["files"][0]
    assert (first["temperature"], first["abstain_below"]) == (1.3125, 0.62)


def with_verdict(verdict: Verdict | None) -> Manifest:
    return dataclasses.replace(MANIFEST, verdict=verdict)


def test_a_gate_that_did_not_run_is_said() -> None:
    files = (dataclasses.replace(CARD.files[0], manifest=with_verdict(None)),)
    text = as_markdown(ModelCard(files))
    assert "no held-out answers" in text
    assert "| did not run |" in text


def test_labels_cannot_write_markdown() -> None:
    manifest = dataclasses.replace(MANIFEST, labels=("a|b", "<script>", "_x_ [x](y)\n# z"))
    text = as_markdown(ModelCard((dataclasses.replace(CARD.files[0], manifest=manifest),)))
    assert r"a\|b, \<script\>, \_x\_ \[x\](y) \# z." in text


def test_the_json_holds_every_figure_and_no_picture() -> None:
    mapping: dict[str, Any] = json.loads(json.dumps(CARD.as_mapping()))
    first = mapping["files"][0]
    assert (first["zipped_bytes"], first["verdict"]["lost"]) == (1_900_000, 3)
    assert first["passes"][0]["facts"]["keep"] == "0.5"
    assert mapping["training"]["images"]["test"] == 300
    assert mapping["training"]["test"]["classes"][2]["recall_percent"] == 40.0
    assert "golden" not in first


def test_written_from_files(make_bundle, tmp_path: Path) -> None:
    path = make_bundle()
    data = path.read_bytes()
    made = ExportedBundle(
        file=path.name,
        model_format="onnx",
        scheme="float32",
        passed=True,
        verdict=VERDICT,
        file_bytes=len(data),
        gzip_bytes=gzip_bytes(data),
        file_sha256="56" * 32,
        key="",
        folder=str(path.parent),
    )
    result = ExportResult(tmp_path, (made,), versions={"numpy": "2.4.6"})
    card = write_model_card(tmp_path, result)
    assert card == tmp_path / "model_card.md"
    text = card.read_text(encoding="utf-8")
    zipped = gzip_bytes(data)
    assert f"| tiny-float32.onnx | onnx | float32 | {len(data):,} | {zipped:,} |" in text
    mapping = json.loads((tmp_path / "model_card.json").read_text(encoding="utf-8"))
    assert mapping["files"][0]["zipped_bytes"] == zipped
    write_model_card(tmp_path, result)
    assert card.read_text(encoding="utf-8") == text


def test_nothing_is_written_of_nothing(tmp_path: Path) -> None:
    result = ExportResult(tmp_path, (), (Failure("onnx", "int8", "no"),))
    assert model_card(result) is None
    assert write_model_card(tmp_path, result) is None
    assert list(tmp_path.iterdir()) == []
