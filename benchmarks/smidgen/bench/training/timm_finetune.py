"""A plain fine-tune with PyTorch and timm, in an environment of its own: the usual recipe.

AdamW 1e-3 with a cosine to 0, RandomResizedCrop (8 to 100 % of the area) and flip, label smoothing
0.1, dropout 0.2, all layers, from the ImageNet weights. The network is timm's
``tf_efficientnet_lite0``, whose padding is that of these weights. Held-out images are resized so
that the shorter side fits, and cropped in the middle, as ours are.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torchvision import transforms

from smidgen.bench.training.timm_network import MEAN, STD, network
from smidgen.bench.training.timm_worker import loader, training_transform
from smidgen.train.data import Example
from smidgen.train.data.dataset_file import from_json

_RATE, _WEIGHT_DECAY, _SMOOTHING = 1e-3, 1e-4, 0.1


class Images(torch.utils.data.Dataset):  # type: ignore[misc]  # torch is not installed here
    """``examples`` as ``((3, S, S) float32, label)``."""

    def __init__(self, examples: Sequence[Example], transform: Any) -> None:
        self._examples, self._transform = examples, transform

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        example = self._examples[index]
        with Image.open(example.path) as image:
            return self._transform(image.convert("RGB")), example.label


def held_out_transform(image_size: int) -> Any:
    """The centred square."""
    steps = [
        transforms.Resize(image_size, transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(image_size),
        transforms.ToTensor(),
        transforms.Normalize((MEAN / 255,) * 3, (STD / 255,) * 3),
    ]
    return transforms.Compose(steps)


def top1(model: Any, batches: Any) -> float:
    """The share of right answers, 0..1."""
    model.eval()
    right = count = 0
    with torch.inference_mode():
        for pixels, labels in batches:
            answers = model(pixels.to(memory_format=torch.channels_last)).argmax(1)
            right += int((answers == labels).sum())
            count += len(labels)
    return right / count


def finetune(settings: dict[str, Any]) -> None:
    """Train, and write ``metrics.jsonl`` and ``test_metrics.json`` into ``settings["out"]``."""
    torch.manual_seed(0)
    torch.set_num_threads(settings["threads"])
    data = from_json(json.loads(Path(settings["dataset"]).read_text(encoding="utf-8")))
    size, batch, threads = (settings[key] for key in ("image_size", "batch_size", "threads"))
    out = Path(settings["out"])
    out.mkdir(parents=True)

    def held_out(examples: Sequence[Example]) -> Any:
        images = Images(examples, held_out_transform(size))
        return torch.utils.data.DataLoader(images, batch, num_workers=threads)

    training = loader(Images(data.train, training_transform(size)), batch, threads, "cpu")
    model = network("tf_efficientnet_lite0", len(data.labels), settings["weights"])
    optimizer = torch.optim.AdamW(model.parameters(), _RATE, weight_decay=_WEIGHT_DECAY, fused=True)
    updates = settings["epochs"] * len(training)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    best, best_state = -1.0, model.state_dict()
    for _ in range(settings["epochs"]):
        _epoch(model, training, optimizer, schedule)
        reached = top1(model, held_out(data.validation))
        with open(out / "metrics.jsonl", "a", encoding="utf-8") as stream:
            print(json.dumps({"val_top1": reached}), file=stream)
        if reached > best:
            best, best_state = reached, copy.deepcopy(model.state_dict())
    model.load_state_dict(best_state)
    result = {"top1_percent": 100 * top1(model, held_out(data.test)), "images": len(data.test)}
    (out / "test_metrics.json").write_text(json.dumps(result), encoding="utf-8")


def _epoch(model: Any, training: Any, optimizer: Any, schedule: Any) -> None:
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=_SMOOTHING)
    model.train()
    for pixels, labels in training:
        loss = criterion(model(pixels.to(memory_format=torch.channels_last)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


if __name__ == "__main__":
    finetune(json.loads(sys.argv[1]))
