"""``curves.png``: loss, accuracy and learning rate of every epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from smidgen.runtime.files import replacing
from smidgen.train.run import EpochMetrics

_TRAIN_COLOR, _VALIDATION_COLOR = "#8a8f98", "#1f6feb"


def draw_curves(rows: Sequence[EpochMetrics], path: Path, title: str) -> None:
    """Draw the epochs in order, with a line where the second stage begins. Raises OutputError."""
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    epochs = range(1, len(rows) + 1)
    loss, accuracy, rate = figure.subplots(1, 3)
    loss.plot(epochs, [r.loss for r in rows], "o-", ms=3, color=_TRAIN_COLOR, label="training")
    loss.plot(epochs, [r.val_loss for r in rows], "o-", ms=3, color=_VALIDATION_COLOR,
              label="validation")  # fmt: skip
    loss.set_title("loss (training: augmented, smoothed labels)", fontsize=10)
    accuracy.plot(epochs, [100 * r.top1 for r in rows], "o-", ms=3, color=_TRAIN_COLOR)
    accuracy.plot(epochs, [100 * r.val_top1 for r in rows], "o-", ms=3, color=_VALIDATION_COLOR)
    accuracy.set_title("top-1, %", fontsize=10)
    rate.semilogy(epochs, [r.learning_rate for r in rows], "o-", ms=3, color=_VALIDATION_COLOR)
    rate.set_title("learning rate at the end of the epoch", fontsize=10)
    boundary = next((i for i, r in enumerate(rows) if i and r.stage != rows[i - 1].stage), None)
    for axes in (loss, accuracy, rate):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if boundary is not None:
            axes.axvline(boundary + 0.5, color="black", lw=0.8, ls=":")
            axes.text(boundary + 0.6, 0.02, "all layers", fontsize=8,
                      transform=axes.get_xaxis_transform())  # fmt: skip
    loss.legend(frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, metadata={"Software": None})
