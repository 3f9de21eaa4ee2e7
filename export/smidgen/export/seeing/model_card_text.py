"""A model card as Markdown, in the sections of Mitchell et al. 2019 (arXiv:1810.03993)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from smidgen.export.seeing.model_card import CardFile, ModelCard, TrainingFacts
from smidgen.runtime.manifest import Manifest, Verdict

_LABELS_SHOWN = 12
_FEW_TEST_IMAGES = 1000
_FEW_OF_A_CLASS = 50
_SPECIAL = re.compile(r"([\\`*{}\[\]<>#|]|(?<!\w)_|_(?!\w))")


def as_markdown(card: ModelCard) -> str:
    """The card, with a line break at its end; equal cards give equal text."""
    sections = (
        ("", _title(card)),
        ("Model details", _details(card)),
        ("Intended use", _use(card)),
        ("Factors", _factors(card)),
        ("Metrics", _metrics(card)),
        ("Evaluation data", _evaluation_data(card)),
        ("Training data", _training_data(card)),
        ("Quantitative analyses", _analyses(card)),
        ("Ethical considerations", _ethics()),
        ("Caveats and recommendations", _caveats(card)),
    )
    blocks = []
    for title, lines in sections:
        head = [f"## {title}", ""] if title else []
        blocks.append("\n".join([*head, *lines]))
    return "\n\n".join(blocks) + "\n"


def _title(card: ModelCard) -> Iterator[str]:
    name = card.training.run if card.training else card.manifest.provenance.source
    yield f"# Model card: {_plain(name)}"


def _details(card: ModelCard) -> Iterator[str]:
    shared = card.manifest
    origin = shared.provenance
    yield f"- Image classifier, {_plain(origin.backbone)}, {len(shared.labels):,} classes."
    if origin.created_utc:
        yield f"- Trained {origin.created_utc}."
    yield f"- Made from: {_plain(origin.source)}."
    yield f"- Float weights: sha256 `{origin.weights_sha256}`"
    yield f"- Data: sha256 `{origin.data_sha256}`"
    if origin.commit:
        yield f"- Source code of the training: commit `{origin.commit}`"
    versions = {**origin.versions, **card.versions}
    yield f"- Versions: {', '.join(f'{name} {versions[name]}' for name in sorted(versions))}."
    yield ""
    yield "| file | format | numbers | bytes | zipped | oldest runtime | gate |"
    yield "|---|---|---|---:|---:|---|---|"
    for file in card.files:
        word = file.manifest.verdict.verdict if file.manifest.verdict else "did not run"
        yield (
            f"| {_plain(file.file)} | {file.manifest.model_format} | {file.manifest.scheme} | "
            f"{file.file_bytes:,} | {file.zipped_bytes:,} | {_runtime(file.manifest)} | {word} |"
        )
    yield ""
    for file in card.files:
        yield f"- {_plain(file.file)}: sha256 `{file.file_sha256}`"
    for failure in card.failures:
        kind = f"{failure.scheme} .{failure.model_format}"
        yield f"- {kind} could not be made: {_plain(failure.reason)}"
    yield ""
    yield from _passes(card)


def _passes(card: ModelCard) -> Iterator[str]:
    done = [(file, record) for file in card.files for record in file.manifest.provenance.passes]
    if not done:
        yield "Between the float weights and the files: no pruning, no clustering."
        return
    yield "Between the float weights and the files:"
    yield ""
    said: dict[str, list[str]] = {}
    for file, record in done:
        facts = ", ".join(f"{_plain(k)} {_plain(v)}" for k, v in sorted(record.facts.items()))
        said.setdefault(f"{record.name}: {facts}", []).append(_plain(file.file))
    for line, files in said.items():
        yield f"- {line} ({', '.join(files)})"


def _use(card: ModelCard) -> Iterator[str]:
    shared = card.manifest
    names = [_plain(label) for label in shared.labels[:_LABELS_SHOWN]]
    more = len(shared.labels) - len(names)
    listed = ", ".join(names) + (f", and {more:,} more" if more > 0 else "")
    if card.training and card.training.task == "orientation":
        yield f"To tell by how much a picture is turned: {listed}."
    else:
        yield f"To tell which of these a picture shows: {listed}."
    yield ""
    yield "- Input: one picture. " + _preprocessing(shared)
    yield "- Output: a probability for each class."
    for line, files in _decisions(card).items():
        yield f"- {line} ({', '.join(files)})."
    yield (
        "- Out of scope: pictures of anything else. The model answers with one of its classes "
        "whatever it is shown; several things in one picture get one answer."
    )


def _decisions(card: ModelCard) -> dict[str, list[str]]:
    """What is said of the probabilities, with the files that it is said of."""
    said: dict[str, list[str]] = {}
    for file in card.files:
        temperature, below = file.manifest.temperature, file.manifest.abstain_below
        lines = []
        if temperature != 1.0:
            lines.append(
                f"Probabilities are shown after a temperature of {temperature:.3g}, fitted on the "
                "validation images"
            )
        if below > 0:
            lines.append(f"Answers with a probability below {below:.3g} abstain")
        for line in lines:
            said.setdefault(line, []).append(_plain(file.file))
    return said


def _preprocessing(manifest: Manifest) -> str:
    how = manifest.preprocessing
    box = "the whole picture, stretched"
    if how.fit == "crop":
        box = f"the centred square of {how.crop_fraction:g} of the shorter side"
    turned = "turned as EXIF says, " if how.exif_orientation else ""
    return (
        f"Pre-processing: {turned}{box}, {how.resample} antialiased resize to {how.width} x "
        f"{how.height} pixels, RGB {manifest.input.dtype} 0..255; normalisation is in the model."
    )


def _factors(card: ModelCard) -> Iterator[str]:
    yield (
        "Results are given by class. Light, camera, place, season, and who is in the pictures were "
        "not recorded, so nothing is known about them here."
    )
    if card.training is not None and card.training.test.orientation is None:
        yield from _classes_table(card.training)


def _classes_table(training: TrainingFacts) -> Iterator[str]:
    """The classes of the lowest recall first."""
    known = {item.label: item for item in training.test.classes}
    rows = [(item, known[item.label]) for item in training.classes if item.label in known]
    rows.sort(key=lambda row: (row[1].recall_percent is None, row[1].recall_percent or 0.0))
    yield ""
    yield "| class | training images | test images | recall of the float model | precision |"
    yield "|---|---:|---:|---|---:|"
    for images, measured in rows[:_LABELS_SHOWN]:
        recall = "no test image"
        if measured.recall_percent is not None:
            low, high = measured.recall_low_percent or 0, measured.recall_high_percent or 0
            recall = f"{measured.recall_percent:.1f} % [{low:.1f}, {high:.1f}]"
        precision = measured.precision_percent
        shown = "" if precision is None else f"{precision:.1f} %"
        yield (
            f"| {_plain(images.label)} | {images.train:,} | {images.test:,} | {recall} | {shown} |"
        )
    if len(rows) > _LABELS_SHOWN:
        yield ""
        yield f"The {_LABELS_SHOWN} of the lowest recall of {len(rows)}."


def _metrics(card: ModelCard) -> Iterator[str]:
    verdict = _first_verdict(card)
    yield "- Top-1: the share of pictures whose class gets the highest probability."
    if verdict is not None and verdict.truth == "reference":
        yield (
            "- The held-out pictures have no labels: a file's top-1 is the share of pictures on "
            "which it answers as the float model does."
        )
    yield (
        "- Drop: top-1 of the float model less that of the file, on the same pictures, in "
        "percentage points, with its 95 % interval for paired answers."
    )
    if verdict is not None:
        yield (
            f"- The gate lets a file pass that loses at most {verdict.max_drop_points:g} points, "
            "interval included; undecided: the pictures are too few to tell."
        )
    yield "- Each file was judged in the runtime that runs it, not in the training framework."


def _evaluation_data(card: ModelCard) -> Iterator[str]:
    verdict = _first_verdict(card)
    held_out = f"{verdict.images:,}" if verdict else "no"
    yield (
        f"{held_out} held-out answers, on pictures that were used neither for training nor for "
        "calibration."
    )
    if verdict is not None and verdict.distinct_images is not None:
        yield f"They are of {verdict.distinct_images:,} different pictures, each turned four ways."


def _training_data(card: ModelCard) -> Iterator[str]:
    training = card.training
    if training is None:
        yield "The model came trained; what it was trained on is not recorded here."
    else:
        images = ", ".join(f"{count:,} {name}" for name, count in training.images.items())
        yield f"- Images: {images}; {training.skipped:,} could not be used."
        yield (
            f"- {training.epochs} epochs; best validation top-1 "
            f"{training.best_validation_percent:.2f} %."
        )
        if training.machine:
            yield f"- Trained on: {_plain(training.machine)}."
        if training.start_weights_sha256:
            yield f"- Started from weights with sha256 `{training.start_weights_sha256}`"
        for line in training.settings:
            yield f"- {_plain(line)}"
    for count, digest, names in _calibrations(card):
        yield f"- int8 ranges from {count:,} training images, sha256 `{digest}` ({names})"


def _calibrations(card: ModelCard) -> Iterator[tuple[int, str, str]]:
    used: dict[tuple[int, str], list[str]] = {}
    for file in card.files:
        origin = file.manifest.provenance
        if origin.calibration_images:
            key = origin.calibration_images, origin.calibration_sha256
            used.setdefault(key, []).append(_plain(file.file))
    for (count, digest), names in used.items():
        yield count, digest, ", ".join(names)


def _analyses(card: ModelCard) -> Iterator[str]:
    if card.training is not None:
        test = card.training.test
        extra = ""
        if test.macro_f1_percent is not None:
            extra += f", macro F1 {test.macro_f1_percent:.2f} %"
        if test.calibration_error_percent is not None:
            extra += f", expected calibration error {test.calibration_error_percent:.2f} %"
        yield (
            f"Float model on the test split: top-1 {test.top1_percent:.2f} % "
            f"[{test.top1_low_percent:.2f}, {test.top1_high_percent:.2f}] of {test.images:,} "
            f"images{extra}."
        )
        yield ""
    yield (
        "| file | top-1 | float model | drop | 95 % interval | changed answers | lost | gained | "
        "largest score difference | engine | verdict |"
    )
    yield "|---|---:|---:|---:|---|---:|---:|---:|---:|---|---|"
    for file in card.files:
        yield _analysis(file)
    more = [(file, line) for file in card.files for line in _more(file)]
    if more:
        yield ""
    for file, line in more:
        yield f"- {_plain(file.file)}: {line}"


def _analysis(file: CardFile) -> str:
    verdict = file.manifest.verdict
    if verdict is None:
        return f"| {_plain(file.file)} |" + " |" * 9 + " did not run |"
    lost, gained = ("" if n is None else str(n) for n in (verdict.lost, verdict.gained))
    cells = (
        _plain(file.file),
        f"{verdict.top1_percent:.2f} %",
        f"{verdict.reference_top1_percent:.2f} %",
        f"{verdict.drop_points:.2f}",
        f"[{verdict.drop_low_points:.2f}, {verdict.drop_high_points:.2f}]",
        f"{verdict.changed_answers} of {verdict.images:,}",
        lost,
        gained,
        f"{verdict.max_score_difference:.2g}",
        _plain(verdict.engine),
        verdict.verdict,
    )
    return f"| {' | '.join(cells)} |"


def _more(file: CardFile) -> Iterator[str]:
    verdict = file.manifest.verdict
    if verdict is None:
        return
    if verdict.mcnemar_p is not None:
        yield f"exact McNemar test of the changed answers: p = {verdict.mcnemar_p:.3g}"
    if verdict.top5 is not None:
        top5 = verdict.top5
        yield (
            f"top-5 {top5.percent:.2f} %, drop {top5.drop_points:.2f} "
            f"[{top5.drop_low_points:.2f}, {top5.drop_high_points:.2f}]"
        )
    if verdict.worst_class is not None:
        worst = verdict.worst_class
        yield (
            f"class that lost most: {_plain(worst.label)}, {worst.right} of {worst.images} right, "
            f"the float model {worst.reference_right}"
        )
    if verdict.confidence_shift_points is not None:
        shown = " as shown" if file.manifest.temperature != 1.0 else ""
        yield f"mean top probability{shown} {verdict.confidence_shift_points:+.2f} points"
    if verdict.calibration_error_percent is not None:
        before = verdict.reference_calibration_error_percent or 0.0
        yield (
            f"expected calibration error {verdict.calibration_error_percent:.2f} %, "
            f"the float model's {before:.2f} %"
        )


def _ethics() -> Iterator[str]:
    yield (
        "Not assessed by the tool that made this card: whether the people and things in the "
        "pictures agreed to it, whether groups are treated alike, and what a wrong answer does to "
        "whom. Whoever publishes the model answers these here."
    )


def _caveats(card: ModelCard) -> Iterator[str]:
    verdict = _first_verdict(card)
    if verdict is None or verdict.images < _FEW_TEST_IMAGES:
        count = verdict.images if verdict else 0
        yield (
            f"- {count:,} held-out answers are few: differences below the intervals above cannot "
            "be told from chance."
        )
    yield from _rare_classes(card)
    for file in card.files:
        found = file.manifest.verdict
        if found is not None and found.verdict != "pass":
            need = found.images_to_decide
            about = f"; about {need:,} images would decide" if need else ""
            yield f"- {_plain(file.file)} did not pass its gate: {found.verdict}{about}."
    yield (
        "- The held-out pictures come from the same collection as the training pictures. On other "
        "cameras, places or years the model may do worse: measure there."
    )
    yield "- Speed and memory are properties of a device: measure with `smidgen bench`."


def _rare_classes(card: ModelCard) -> Iterator[str]:
    if card.training is None:
        return
    rarest = min(card.training.classes, key=lambda item: (item.test, item.train, item.label))
    yield (
        f"- The class with the fewest images is {_plain(rarest.label)}: {rarest.train:,} to train "
        f"on, {rarest.test:,} to test on."
    )
    scarce = [item for item in card.training.classes if item.test < _FEW_OF_A_CLASS]
    if scarce:
        yield (
            f"- {len(scarce)} of {len(card.training.classes)} classes have fewer than "
            f"{_FEW_OF_A_CLASS} test images: their figures are rough."
        )


def _first_verdict(card: ModelCard) -> Verdict | None:
    return next((f.manifest.verdict for f in card.files if f.manifest.verdict), None)


def _runtime(manifest: Manifest) -> str:
    return ", ".join(f"{k} {v}" for k, v in manifest.minimum_runtime.items()) or "any"


def _plain(text: str) -> str:
    """``text`` in one line, with nothing that Markdown would take for markup.

    An underscore between letters is none.
    """
    return _SPECIAL.sub(r"\\\1", " ".join(str(text).split()))
