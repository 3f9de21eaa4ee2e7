"""Where numbers and pictures of a training go while it runs: ``MetricSink``, and TensorBoard."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol

from smidgen.runtime.files import output_error
from smidgen.train.run import EpochMetrics
from smidgen.train.seeing.step_log import StepMetrics

Setting = bool | int | float | str

_FLUSH_S = 15
_BEGINNING = 0


class MetricSink(Protocol):
    """Receives what training measures. ``step`` counts from 1 over the whole Run.

    What is known before the first step (pictures of the data, texts, settings) is at step 0.
    """

    def step(self, row: StepMetrics) -> None:
        """One step is done."""

    def epoch(self, row: EpochMetrics, step: int) -> None:
        """One epoch is done and validated; ``step`` is its last."""

    def picture(self, name: str, path: Path, step: int) -> None:
        """A PNG file, under a name such as ``curves``."""

    def text(self, name: str, text: str) -> None:
        """A text as it is, such as the recipe."""

    def settings(self, values: Mapping[str, Setting]) -> None:
        """The settings that Runs are compared by."""

    def close(self) -> None:
        """Nothing more comes; everything is on disk."""


class RememberingSink:
    """Writes nothing, remembers everything: the fake."""

    def __init__(self) -> None:
        self.steps: list[StepMetrics] = []
        self.epochs: list[tuple[EpochMetrics, int]] = []
        self.pictures: list[tuple[str, Path, int]] = []
        self.texts: dict[str, str] = {}
        self.values: dict[str, Setting] = {}
        self.is_closed = False

    def step(self, row: StepMetrics) -> None:
        """Remember the step."""
        self.steps.append(row)

    def epoch(self, row: EpochMetrics, step: int) -> None:
        """Remember the epoch."""
        self.epochs.append((row, step))

    def picture(self, name: str, path: Path, step: int) -> None:
        """Remember the file's name."""
        self.pictures.append((name, path, step))

    def text(self, name: str, text: str) -> None:
        """Remember the text."""
        self.texts[name] = text

    def settings(self, values: Mapping[str, Setting]) -> None:
        """Remember the settings."""
        self.values |= values

    def close(self) -> None:
        """Remember that it was closed."""
        self.is_closed = True


class TensorBoardSink:
    """Event files for ``tensorboard --logdir FOLDER``; closes as a context manager.

    Scalars: ``loss/step``, ``loss/train``, ``loss/validation``, ``top1_percent/train``,
    ``top1_percent/validation``, ``schedule/learning_rate``, ``speed/images_per_second``. Pictures
    are ``pictures/<name>``. TensorBoard opens the first two groups by name: loss and pictures.
    """

    def __init__(self, folder: str | os.PathLike[str], done_steps: int = 0) -> None:
        """Begin a log, or go on with the one in ``folder`` after ``done_steps`` steps.

        Where no step is done, what lies in ``folder`` goes. Otherwise TensorBoard is told to drop
        what was logged of later steps, and what belongs to step 0 is there already: it is not
        written again.

        Raises:
            OutputError: the folder cannot be written to.
        """
        from tensorboardX import SummaryWriter

        self._is_new = done_steps == 0
        if self._is_new:
            shutil.rmtree(folder, ignore_errors=True)
        try:
            # Names in the order of the steps also where two writers begin in the same second.
            self._writer = SummaryWriter(
                str(folder),
                purge_step=None if self._is_new else done_steps + 1,
                flush_secs=_FLUSH_S,
                filename_suffix=f".{done_steps:012d}",
            )
        except OSError as error:
            raise output_error(Path(folder), error) from error

    def step(self, row: StepMetrics) -> None:
        """Write the three numbers of a step."""
        self._writer.add_scalar("loss/step", row.loss, row.step)
        self._writer.add_scalar("schedule/learning_rate", row.learning_rate, row.step)
        self._writer.add_scalar("speed/images_per_second", row.images_per_second, row.step)

    def epoch(self, row: EpochMetrics, step: int) -> None:
        """Write losses and top-1 of an epoch."""
        self._writer.add_scalar("loss/train", row.loss, step)
        self._writer.add_scalar("loss/validation", row.val_loss, step)
        self._writer.add_scalar("top1_percent/train", 100 * row.top1, step)
        self._writer.add_scalar("top1_percent/validation", 100 * row.val_top1, step)
        self._writer.flush()

    def picture(self, name: str, path: Path, step: int) -> None:
        """Write the pixels of a PNG file. Raises OSError where it cannot be read."""
        import numpy as np
        from PIL import Image

        if self._is_known(step):
            return
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        self._writer.add_image(f"pictures/{name}", pixels, step, dataformats="HWC")
        self._writer.flush()

    def text(self, name: str, text: str) -> None:
        """Write the text as a block of code: TensorBoard would read it as Markdown."""
        if self._is_known(_BEGINNING):
            return
        block = "".join(f"    {line}\n" for line in text.splitlines())
        self._writer.add_text(name, block, _BEGINNING)
        self._writer.flush()

    def settings(self, values: Mapping[str, Setting]) -> None:
        """Write the table of TensorBoard's HPARAMS page, beside the validation's numbers."""
        from tensorboardX.summary import hparams

        if self._is_known(_BEGINNING):
            return
        metrics = {"loss/validation": 0.0, "top1_percent/validation": 0.0}
        for summary in hparams(dict(values), metrics):
            self._writer.file_writer.add_summary(summary, _BEGINNING)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def __enter__(self) -> TensorBoardSink:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _is_known(self, step: int) -> bool:
        return step == _BEGINNING and not self._is_new
