"""The comparison of quantizers: its figures by hand, failures, tables, readers and workers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("PIL")
pytest.importorskip("onnx")

from PIL import Image

from environments import ENVIRONMENTS
from smidgen.bench.errors import ContenderFailed, NothingToMeasure
from smidgen.bench.fake import FakeDevice
from smidgen.bench.quantization import __main__ as contest_command
from smidgen.bench.quantization import table
from smidgen.bench.quantization.bundle_rows import Observed, notes_of, rows_of, table_of
from smidgen.bench.quantization.contenders import CONTENDERS, Contender
from smidgen.bench.quantization.contest import Made, Processes, Reading, best_rival, hold
from smidgen.bench.quantization.fidelity import Fidelity, compare, ratio_of_differences
from smidgen.bench.quantization.fidelity_table import fidelity_notes, fidelity_table
from smidgen.bench.quantization.logits import answer, before_softmax
from smidgen.bench.quantization.task import PixelScale, Subject, Task
from smidgen.bench.recipe import BenchRecipe
from smidgen.bench.training.contenders import linked_rooms
from smidgen.export.errors import SourceError
from smidgen.export.formats.compressed import gzip_bytes
from smidgen.export.gate.verdicts import JudgedImages

RUNTIME_TESTS = Path(__file__).parent.parent / "runtime"
SCALE = PixelScale(1 / 128, 127)
SUBJECT = Subject("tiny", "photos", 3, 1)
TASK = Task(SUBJECT, "f.keras", "f.tflite", "f.onnx", "c.npy", SCALE)


def logits_of(answers: list[int], classes: int = 4) -> np.ndarray:
    """``(N, classes) float32`` that are 2 for the answer and 0 elsewhere."""
    return 2 * np.eye(classes, dtype=np.float32)[answers]


def fidelity_of(shift: float, answers: list[int]) -> Fidelity:
    """A file whose logits are all ``shift`` too high and which gives ``answers`` for 0, 1, 2, 3."""
    reference = logits_of([0, 1, 2, 3])
    found = np.array(answers, np.int64)
    return compare(reference, reference + np.float32(shift), found, np.array([0, 1, 2, 2]))


def test_figures_by_hand() -> None:
    reference = logits_of([0, 1, 2, 3])
    logits = reference.copy()
    logits[0, 0] -= 1.0
    logits[3, 1] += 3.0
    found = compare(reference, logits, logits.argmax(axis=1), np.array([0, 1, 1, 3]))
    assert (found.kept.hits, found.kept.total) == (3, 4)
    assert (found.kept.low, found.kept.high) == pytest.approx((0.3006, 0.9544), abs=1e-4)
    assert found.image_differences == (0.25, 0.0, 0.0, 0.75)
    assert (found.mean_difference, found.largest_difference) == (0.25, 3.0)
    assert found.top1 is not None
    assert (found.top1.percent, found.top1.drop_points) == (50.0, 25.0)
    assert found.top1.drop_low_points < 25 < found.top1.drop_high_points
    without = compare(reference, logits, logits.argmax(axis=1), None)
    assert without.top1 is None and without.kept == found.kept


def test_the_answers_are_the_files_own_and_need_not_be_those_of_its_logits() -> None:
    reference = logits_of([0, 1, 2, 3])
    same = compare(reference, reference, np.array([0, 1, 2, 3]), None)
    shuffled = compare(reference, reference, np.array([1, 2, 3, 0]), None)
    assert (same.kept.hits, shuffled.kept.hits) == (4, 0)
    assert same.mean_difference == shuffled.mean_difference == 0.0


def test_what_cannot_be_compared_is_refused() -> None:
    reference = logits_of([0, 1])
    broken = reference.copy()
    broken[1, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        compare(reference, broken, np.array([0, 1]), None)
    with pytest.raises(ValueError, match=r"do not fit the float model's \(2, 4\)"):
        compare(reference, reference[:1], np.array([0]), None)


def test_the_ratio_keeps_the_images_paired() -> None:
    random = np.random.default_rng(1)
    hard = random.gamma(1.0, 1.0, (200, 1)).astype(np.float32)  # images differ much
    zeros = np.zeros((200, 4), np.float32)
    answers = np.zeros(200, np.int64)
    theirs = compare(zeros, zeros + hard, answers, None)
    ours = compare(zeros, zeros + 0.9 * hard, answers, None)
    ratio = ratio_of_differences(ours, theirs)
    assert ratio.value == pytest.approx(0.9, abs=1e-6)
    assert (ratio.low, ratio.high) == pytest.approx((0.9, 0.9), abs=1e-6)
    mixed = compare(zeros, zeros + 0.9 * random.permutation(hard), answers, None)
    loose = ratio_of_differences(mixed, theirs)  # the planted fault: pairs mixed up
    assert loose.value == pytest.approx(0.9, abs=1e-6) and loose.high - loose.low > 0.1


class FakeLaboratory:
    """Files of known logits. See ``Laboratory``."""

    def __init__(self, folder: Path, shifts: dict[str, float]) -> None:
        self._folder, self._shifts = folder, shifts

    def quantize(self, contender: Contender) -> Made:
        """See ``Laboratory``."""
        if contender.name not in self._shifts:
            raise ContenderFailed(f"{contender.name}: out of memory")
        file = self._folder / (contender.stem + contender.suffix)
        file.write_bytes(b"int8" * len(contender.name))
        return Made(file, 1.5, {"fakes": "1.0"})

    def read(self, name: str, file: Path) -> Reading:
        """See ``Laboratory``."""
        assert file.exists()
        shift = self._shifts[name]
        logits = logits_of([0, 1, 2, 3]) + np.float32(shift)
        return Reading(np.array([0, 1, 2, 3 if shift < 1 else 0]), logits)


def test_the_best_comes_first_and_one_that_fails_last_with_its_reason(tmp_path: Path) -> None:
    names = ("bad", "dies", "rival", "ours", "odd")
    shifts = {"bad": 1.0, "rival": 0.5, "ours": 0.25, "odd": float("nan")}
    field = [Contender(n, "w", "m", ".onnx", is_ours=n == "ours") for n in names]
    said: list[str] = []
    laboratory = FakeLaboratory(tmp_path, shifts)
    rows = hold(field, laboratory, logits_of([0, 1, 2, 3]), np.arange(4), said.append)
    assert [row.name for row in rows] == ["ours", "rival", "bad", "dies", "odd"]
    assert [row.failure for row in rows[3:]] == ["out of memory", "logits hold NaN or infinity"]
    assert best_rival(rows) is rows[1]
    assert said.count("FAILED dies: out of memory") == 1
    assert (rows[0].file_bytes, rows[0].seconds) == (16, 1.5)
    lines = fidelity_table(rows).as_markdown().splitlines()
    assert lines[2].startswith("| ours | 100.00 [51.0, 100.0] | 0.2500 | 0.500 [0.500, 0.500] |")
    assert lines[3].startswith("| rival | 100.00 [51.0, 100.0] | 0.5000 | 1 | 0.50 | 100.00 |")
    assert lines[4].startswith("| bad | 75.00") and "| 25.00 [" in lines[4]
    assert lines[5] == "| dies |" + " - |" * 8
    notes = fidelity_notes(rows)
    assert notes[-3:] == [
        "Made with fakes 1.0.",
        "FAILED dies: out of memory",
        "FAILED odd: logits hold NaN or infinity",
    ]
    text = fidelity_table(rows).as_text().splitlines()
    assert text[1].split()[:3] == ["ours", "100.00", "[51.0,"]
    assert len({len(line) for line in text}) == 1  # the columns are aligned


def test_the_field() -> None:
    assert len({contender.stem for contender in CONTENDERS}) == len(CONTENDERS)
    needed = {contender.environment for contender in CONTENDERS} - {""}
    assert needed == {"rival-nncf", "rival-aeq"} and needed <= set(ENVIRONMENTS)
    assert [contender.name for contender in CONTENDERS if contender.is_ours] == [
        "smidgen .tflite",
        "smidgen .onnx",
    ]


def test_a_process_that_cannot_run_is_one_line(tmp_path: Path) -> None:
    processes = Processes(TASK, tmp_path / "p.npy", tmp_path, tmp_path, tmp_path)
    with pytest.raises(ContenderFailed, match=r"^far: .* run `python tools/setup_env.py rival-x`$"):
        processes.quantize(Contender("far", "w", "m", ".onnx", "rival-x"))
    with pytest.raises(ContenderFailed, match=r"^new: .*No module named .*no_such_worker"):
        processes.quantize(Contender("new", "no_such_worker", "m", ".onnx"))
    with pytest.raises(ContenderFailed, match=r"^gone: .*No such file"):
        processes.read("gone", tmp_path / "gone.onnx")


def test_every_contender_gets_the_same_decoded_images(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3)).astype(np.uint8)
    np.save(tmp_path / "c.npy", pixels)
    task = dataclasses.replace(TASK, pixels=str(tmp_path / "c.npy"))
    assert Task.from_json(task.to_json()) == task
    last, planes = list(task.calibration()), list(task.calibration(channels_first=True))
    assert [image.shape for image in last] == [(1, 4, 5, 3)] * 3
    assert [image.shape for image in planes] == [(1, 3, 4, 5)] * 3
    assert last[1].dtype == np.float32
    np.testing.assert_array_equal(last[2][0], (pixels[2].astype(np.float32) - 127) / 128)
    np.testing.assert_array_equal(planes[2][0, 1], last[2][0, :, :, 1])


@pytest.fixture
def tiny_pixels() -> np.ndarray:
    """``(6, 8, 8, 3) uint8``."""
    colours = np.random.default_rng(2).integers(40, 210, (6, 1, 1, 3))
    return (colours + np.arange(8)[:, None, None] + np.zeros((8, 1), int)).astype(np.uint8)


@pytest.mark.parametrize(("scheme", "tolerance"), [("float32", 1e-5), ("int8", 0.03)])
def test_logits_are_read_before_the_softmax_of_a_tflite_file(
    tiny_pixels: np.ndarray, scheme: str, tolerance: float
) -> None:
    pytest.importorskip("ai_edge_litert")
    file = RUNTIME_TESTS / f"tiny-{scheme}.tflite"
    answers, logits = answer(file, tiny_pixels, SCALE)
    expected = 4 * SCALE.decode(tiny_pixels).mean(axis=(1, 2))
    np.testing.assert_array_equal(answers, expected.argmax(axis=1))
    assert np.abs(logits - expected).max() < tolerance
    wrong = 4 * PixelScale(1 / 128, 128).decode(tiny_pixels).mean(axis=(1, 2))
    assert np.abs(logits - wrong).max() > tolerance  # the planted fault: one grey level off
    cut = before_softmax(file.read_bytes())
    assert before_softmax(cut) == cut


def test_logits_are_read_before_the_softmax_of_an_onnx_file(
    tiny_pixels: np.ndarray, make_bundle: Callable[..., Path]
) -> None:
    pytest.importorskip("onnxruntime")
    answers, logits = answer(make_bundle(), tiny_pixels, SCALE)
    expected = tiny_pixels.astype(np.float64).mean(axis=(1, 2)) / 32
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    np.testing.assert_array_equal(answers, expected.argmax(axis=1))
    assert np.abs(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) - logits).max() > 0.1


def observed(file: str, answers: list[int], size: int, milliseconds: float) -> Observed:
    """A Bundle that gives ``answers`` and takes about ``milliseconds``."""
    scores = np.eye(3, dtype=np.float32)[answers]
    rounds = tuple((round(1e6 * milliseconds * slow),) * 3 for slow in (1.0, 1.2, 1.1))
    return Observed(file, size, size // 2, scores, rounds)


def test_bundles_beside_the_float_model_and_the_plain_int8_file() -> None:
    truth = [0, 1, 2, 0] * 100
    flipped = [1, *truth[1:]]
    some = [
        observed("float.tflite", truth, 4000, 10.0),
        observed("int8.tflite", flipped, 1000, 5.0),
        observed("pruned.tflite", [1] * 100 + truth[100:], 400, 2.5),
        Observed("torn.tflite", 100, 90, failures=("crashed (SIGSEGV)",)),
    ]
    limits = {"float.tflite": 0.0, "int8.tflite": 2.0, "pruned.tflite": 1.0, "torn.tflite": 1.0}
    rows = rows_of(some, 1, JudgedImages(np.array(truth, np.int64)), limits)
    verdicts = [row.verdict.verdict if row.verdict else "" for row in rows]
    assert verdicts[1:] == ["pass", "fail", ""]
    assert [row.bytes_share for row in rows] == [4.0, 1.0, 0.4, 0.1]
    assert rows[2].ratio is not None and rows[2].ratio.value == pytest.approx(0.5)
    assert rows[1].ratio is None and rows[1].inference_ms == pytest.approx(5.5)
    lines = table_of(rows).as_markdown().splitlines()
    start = "| int8.tflite | 1,000 | 100.0 | 500 | 100.0 | 5.50 | 1 | 99.75 | 0.25 ["
    assert lines[3].startswith(start) and lines[3].endswith("| 2 | pass |")
    assert "| 0.50 [0.50, 0.50] | 81.25 | 18.75 [" in lines[4] and lines[4].endswith("| fail |")
    assert lines[5] == "| torn.tflite | 100 | 10.0 | 90 | 18.0 |" + " - |" * 6
    notes = notes_of(rows, 1)
    assert notes[0].startswith("% of, x time: of int8.tflite's bytes")
    assert notes[-1] == "FAILED torn.tflite: crashed (SIGSEGV)"


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Two pictures of each colour that the tiny Bundle tells apart, in folders of their names."""
    for index, label in enumerate(("red", "green", "blue")):
        for shade in (180, 230):
            pixels = np.zeros((16, 16, 3), np.uint8)
            pixels[..., index] = shade
            path = tmp_path / "colours" / label / f"{shade}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return tmp_path / "colours"


def test_class_folders_are_found_by_the_bundles_labels(colours: Path) -> None:
    found = table.labelled(colours, ("red", "green", "blue"))
    assert [(Path(p.path).parent.name, p.label) for p in sorted(found, key=lambda p: p.path)] == [
        ("blue", 2), ("blue", 2), ("green", 1), ("green", 1), ("red", 0), ("red", 0),
    ]  # fmt: skip
    with pytest.raises(NothingToMeasure, match="has no folder 'grey'"):
        table.labelled(colours, ("red", "grey"))
    (colours / "empty").mkdir()
    with pytest.raises(SourceError, match="no image under"):
        table.labelled(colours, ("red", "empty"))
    copy = colours / "blue" / "copy.png"
    copy.write_bytes((colours / "red" / "180.png").read_bytes())
    with pytest.raises(NothingToMeasure, match="the same image under two labels"):
        table.labelled(colours, ("red", "blue"))


def test_bundles_answer_in_their_own_runtime_and_take_turns(
    colours: Path, make_bundle: Callable[..., Path]
) -> None:
    pytest.importorskip("onnxruntime")
    bundles = [make_bundle("a.onnx", name="a"), make_bundle("b.onnx", name="b")]
    pictures = table.labelled(colours, ("red", "green", "blue"))
    said: list[str] = []
    broken = FakeDevice(lambda argv: "no sample" if "a.onnx" in argv[1] else "[]")
    found = table.observe(bundles, pictures, BenchRecipe(rounds=3), broken, said.append)
    for one, path in zip(found, bundles, strict=True):
        assert one.scores is not None
        assert one.scores.argmax(axis=1).tolist() == [picture.label for picture in pictures]
        assert one.zipped_bytes == gzip_bytes(path.read_bytes()) < one.data_bytes
        assert len(one.failures) == 1 and "no timing sample" in one.failures[0]


@pytest.mark.slow
def test_the_table_of_bundles_from_end_to_end(
    colours: Path, make_bundle: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = make_bundle("a.onnx", name="a"), make_bundle("b.onnx", name="b")
    out = colours.parent / "out.json"
    arguments = [str(first), str(second), "--images", str(colours), "--json", str(out)]
    limits = ["--max-drop", "60", "--rounds", "3", "--markdown", str(out.with_suffix(".md"))]
    assert table.main([*arguments, *limits]) == 0
    printed = capsys.readouterr().out
    rows = json.loads(out.read_text())["rows"]
    assert rows[1]["verdict"]["verdict"] == "pass"
    assert all(row["inference_ms"] > 0 for row in rows) and rows[1]["ratio"]["value"] > 0
    assert "b.onnx" in printed and "| b.onnx |" in out.with_suffix(".md").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.onnx", "--images", "."], "none.onnx: no such file"),
        (["{a}", "{a}", "--images", "."], "two Bundles have one file name"),
        (["{a}", "--images", "nowhere"], "nowhere has no folder 'red'"),
        (["{a}", "--run", "nowhere"], "nowhere"),
    ],
)
def test_wrong_use_of_the_table_is_one_line(
    arguments: list[str],
    said: str,
    make_bundle: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = str(make_bundle("a.onnx"))
    assert table.main([one.format(a=path) for one in arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and said in captured.err and captured.err.count("\n") == 1


def test_the_contest_needs_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert contest_command.main(["--images", str(tmp_path / "none")]) == 2
    assert "name a folder of images" in capsys.readouterr().err


def _tiny_source(photos: Path) -> Any:
    """A FloatModel of three classes; the first 12 pictures calibrate."""
    import keras

    from smidgen.bench.quantization.material import split
    from smidgen.export.pictures import scan_unlabelled
    from smidgen.export.source import ChannelNormalization, FloatModel
    from smidgen.runtime.manifest import Preprocessing

    keras.utils.set_random_seed(3)
    image = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, 2, padding="same", use_bias=False)(image)
    x = keras.layers.ReLU(6.0)(keras.layers.BatchNormalization()(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    network = keras.Model(image, keras.layers.Dense(3)(x))
    calibration, judged = split(scan_unlabelled(photos), 12)
    return FloatModel(
        name="tiny",
        source="tiny",
        backbone="tiny",
        labels=("a", "b", "c"),
        preprocessing=Preprocessing(width=16, height=16),
        normalization=ChannelNormalization.of(127.0, 128.0),
        load=lambda: network,
        weights_sha256="1" * 64,
        data_sha256="2" * 64,
        calibration_pool=tuple(calibration),
        held_out=tuple(judged),
    )


@pytest.mark.slow
def test_the_quantizers_of_the_toolchain_work_and_agree(tmp_path: Path) -> None:
    """TFLiteConverter and both settings of onnxruntime, from one small network."""
    pytest.importorskip("tensorflow")
    from smidgen.bench.quantization.material import prepare, split, truth_of

    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(40):
        noise = np.random.default_rng(number).integers(0, 256, (2, 3, 3), np.uint8)
        Image.fromarray(noise).resize((32, 24)).save(photos / f"{number % 3:04}_{number}.png")
    source = _tiny_source(photos)
    material = prepare(Subject("tiny", str(photos), 12), source, tmp_path)
    assert material.pixels.shape == (28, 16, 16, 3) and material.logits.shape == (28, 3)
    fed = np.load(material.task.pixels)
    assert fed.shape == (12, 16, 16, 3) and (fed.min(), fed.max()) == (0, 255)
    names = [Path(picture.path).name for picture in source.held_out]
    assert material.truth is not None
    assert material.truth.tolist() == [int(name[:4]) for name in names]
    assert truth_of(["0001_a.jpg", "cat.jpg"]) is None
    pictures = [*source.calibration_pool, *source.held_out]
    calibration, judged = split(pictures, 12, fold=2)
    assert calibration == list(source.held_out[12:24]) and len(judged) == 28
    for count, fold in ((28, 0), (12, 2)):
        with pytest.raises(NothingToMeasure, match="to judge on"):
            split(source.held_out, count, fold)
    np.save(tmp_path / "judged.npy", material.pixels)
    field = [one for one in CONTENDERS if not one.is_ours and not one.environment]
    rooms = linked_rooms(tmp_path / "rooms")
    processes = Processes(material.task, tmp_path / "judged.npy", tmp_path, tmp_path, rooms)
    rows = hold(field, processes, material.logits, material.truth, lambda _: None)
    assert [row.failure for row in rows] == [""] * 3
    spread = float(np.abs(material.logits).mean())
    for row in rows:
        assert row.fidelity is not None
        assert 0 < row.fidelity.mean_difference < 0.05 * spread
        assert row.fidelity.kept.hits >= 26
    # the planted fault: judged on other pixels than the float model, every file is far off
    np.save(tmp_path / "judged.npy", material.pixels[::-1])
    (wrong,) = hold(field[-1:], processes, material.logits, material.truth, lambda _: None)
    assert wrong.fidelity is not None and wrong.fidelity.mean_difference > 0.05 * spread
