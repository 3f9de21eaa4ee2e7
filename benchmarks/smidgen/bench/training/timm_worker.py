"""PyTorch and timm as a contender: the loop that one writes. Runs in an environment of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import timm
import torch
from torchvision import datasets, transforms

from smidgen.bench.training.gate import Gate, Over, standard_gate
from smidgen.bench.training.setting import (
    BATCH_CLASSES,
    LABEL_SMOOTHING,
    LEARNING_RATE,
    WEIGHT_DECAY,
    Setting,
)
from smidgen.bench.training.timm_network import MEAN, STD, network

Batches = Iterator[tuple[Any, Any]]


def image_folder(folder: str, image_size: int) -> Any:
    """The images of class folders, cropped and flipped at random, normalised."""
    return datasets.ImageFolder(folder, training_transform(image_size))


def training_transform(image_size: int) -> Any:
    """``RandomResizedCrop`` and flip; from a Pillow image to ``(3, S, S) float32``."""
    steps = [
        transforms.RandomResizedCrop(image_size),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize((MEAN / 255,) * 3, (STD / 255,) * 3),
    ]
    return transforms.Compose(steps)


def loader(images: Any, batch_size: int, threads: int, device: str) -> Any:
    """Shuffled batches of ``images``, made by as many processes as there are cores."""
    return torch.utils.data.DataLoader(
        images,
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=threads,
        persistent_workers=True,
        pin_memory=device == "cuda",
    )


def batches(setting: Setting, device: str) -> tuple[Batches, int]:
    """Batches without end, on ``device``, and the number of classes."""
    if setting.source == "batch":
        side, size = setting.image_size, setting.batch_size
        pixels = torch.randn(size, 3, side, side).to(memory_format=torch.channels_last)
        batch = (pixels.to(device), torch.arange(size, device=device) % BATCH_CLASSES)
        return iter(lambda: batch, None), BATCH_CLASSES
    images = image_folder(setting.folder, setting.image_size)
    made = loader(images, setting.batch_size, setting.threads, device)
    return _endless(made, device), len(images.classes)


def _endless(made: Any, device: str) -> Batches:
    while True:
        for pixels, labels in made:
            yield (
                pixels.to(device, memory_format=torch.channels_last, non_blocking=True),
                labels.to(device, non_blocking=True),
            )


def train(setting: Setting, weights: str, gate: Gate) -> None:
    """Train ``setting`` until the gate says that it is over (raises Over)."""
    torch.set_num_threads(setting.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    made, classes = batches(setting, device)
    model = network("efficientnet_lite0", classes, weights).to(device)
    gate.built({"torch": torch.__version__, "timm": timm.__version__})
    model.train()
    if setting.stage == "head":
        model.eval().requires_grad_(False)
        model.classifier.requires_grad_(True)
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # the fused update is the fastest that torch has
    optimizer = torch.optim.AdamW(learnt, LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=LABEL_SMOOTHING)
    forward = torch.compile(model) if setting.compiled else model
    is_bfloat16 = setting.precision == "bfloat16"
    finish = torch.cuda.synchronize if device == "cuda" else None
    for pixels, labels in made:
        with torch.autocast(device, torch.bfloat16, enabled=is_bfloat16):
            loss = criterion(forward(pixels), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        gate.step(len(labels), finish)


def main() -> None:
    """Train the setting in the first argument from the weights file in the second one."""
    try:
        train(Setting.from_json(sys.argv[1]), sys.argv[2], standard_gate())
    except Over:
        return


if __name__ == "__main__":
    main()
