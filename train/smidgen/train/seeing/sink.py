"""Where numbers and pictures of a training go while it runs: ``MetricSink``, and TensorBoard."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from smidgen.runtime.files import output_error
from smidgen.train.run import EpochMetrics
from smidgen.train.seeing.step_log import StepMetrics

Setting = bool | int | float | str

_FLUSH_EVERY_S = 5.0
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
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        self._is_new = done_steps == 0
        self._is_closed = False
        self._flushed_s = time.monotonic()
        place = Path(folder)
        if self._is_new:
            shutil.rmtree(place, ignore_errors=True)
        try:
            place.mkdir(parents=True, exist_ok=True)
            # Not tensorboardX's SummaryWriter: what its thread has not taken yet is not flushed.
            # Names in the order of the steps also where two writers begin in the same second.
            self._writer = EventsWriter(str(place / "events"), f".{done_steps:012d}")
        except OSError as error:
            raise output_error(place, error) from error
        if not self._is_new:
            self._write(done_steps + 1, session_log=SessionLog(status=SessionLog.START))

    def step(self, row: StepMetrics) -> None:
        """Write the three numbers of a step."""
        self._scalar("loss/step", row.loss, row.step)
        self._scalar("schedule/learning_rate", row.learning_rate, row.step)
        self._scalar("speed/images_per_second", row.images_per_second, row.step)
        if time.monotonic() - self._flushed_s > _FLUSH_EVERY_S:
            self._flush()

    def epoch(self, row: EpochMetrics, step: int) -> None:
        """Write losses and top-1 of an epoch; when this returns they are in the file."""
        self._scalar("loss/train", row.loss, step)
        self._scalar("loss/validation", row.val_loss, step)
        self._scalar("top1_percent/train", 100 * row.top1, step)
        self._scalar("top1_percent/validation", 100 * row.val_top1, step)
        self._flush()

    def picture(self, name: str, path: Path, step: int) -> None:
        """Write a PNG file as it is. Raises OSError where it cannot be read."""
        from PIL import Image
        from tensorboardX.proto.summary_pb2 import Summary

        if self._is_known(step):
            return
        with Image.open(path) as picture:
            width, height = picture.size
        image = Summary.Image(
            width=width, height=height, colorspace=3, encoded_image_string=path.read_bytes()
        )
        value = Summary.Value(tag=f"pictures/{name}", image=image)
        self._write(step, summary=Summary(value=[value]))
        self._flush()

    def text(self, name: str, text: str) -> None:
        """Write the text as a block of code: TensorBoard would read it as Markdown."""
        from tensorboardX import summary

        if self._is_known(_BEGINNING):
            return
        block = "".join(f"    {line}\n" for line in text.splitlines())
        self._write(_BEGINNING, summary=summary.text(name, block))
        self._flush()

    def settings(self, values: Mapping[str, Setting]) -> None:
        """Write the table of TensorBoard's HPARAMS page, beside the validation's numbers."""
        from tensorboardX import summary

        if self._is_known(_BEGINNING):
            return
        metrics = {"loss/validation": 0.0, "top1_percent/validation": 0.0}
        for part in summary.hparams(dict(values), metrics):
            self._write(_BEGINNING, summary=part)
        self._flush()

    def close(self) -> None:
        """Write what is left; closing again does nothing."""
        if not self._is_closed:
            self._is_closed = True
            self._writer.close()

    def _scalar(self, tag: str, value: float, step: int) -> None:
        from tensorboardX import summary

        self._write(step, summary=summary.scalar(tag, value))

    def _write(self, step: int, **what: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._writer.write_event(Event(wall_time=time.time(), step=step, **what))

    def _flush(self) -> None:
        self._writer.flush()
        self._flushed_s = time.monotonic()

    def _is_known(self, step: int) -> bool:
        return step == _BEGINNING and not self._is_new
