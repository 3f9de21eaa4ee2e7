"""What int8 did to known networks: published or measured, each figure with the name of its source.

Percentages are top-1 on ImageNet's validation images, unless the source says otherwise.
Of smidgen's own figures the standard errors are 0.4 to 1 point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Method = Literal["post-training", "naive ranges", "QAT"]
"""Post-training quantization with care; with one range or scale where several are needed;
quantization-aware training."""

_LITE = "EfficientNet-Lite, README of its authors"
_WHITEPAPER = "Krishnamoorthi 2018, arXiv:1806.08342"
_MODEL_API = "OpenVINO model_api, pull request 594 (a sample of images)"
_NNCF = "NNCF, Model Zoo"
_HERE = "smidgen, 800 sample images"
_PTQ: Method = "post-training"
_NAIVE: Method = "naive ranges"
_QAT: Method = "QAT"


@dataclass(frozen=True)
class Evidence:
    """Top-1 before and after int8, in percent. ``detail`` says what is special about the method."""

    network: str
    method: Method
    float_percent: float
    int8_percent: float
    source: str
    detail: str = ""

    @property
    def drop_points(self) -> float:
        """Percentage points lost; negative where int8 was better."""
        return round(self.float_percent - self.int8_percent, 2)


EVIDENCE: tuple[Evidence, ...] = (
    Evidence("efficientnet-lite0", _PTQ, 75.1, 74.4, _LITE),
    Evidence("efficientnet-lite0", _PTQ, 75.40, 75.36, "AIMET, model zoo"),
    Evidence("efficientnet-lite0", _PTQ, 75.50, 75.18, "NNCF, published results"),
    Evidence("efficientnet-lite0", _PTQ, 90.10, 89.35, _HERE, "TFLite converter, per-channel"),
    Evidence("efficientnet-lite0", _NAIVE, 90.10, 84.10, _HERE, "one scale for a whole kernel"),
    Evidence("efficientnet-lite1", _PTQ, 76.7, 75.9, _LITE),
    Evidence("efficientnet-lite2", _PTQ, 77.6, 77.0, _LITE),
    Evidence("efficientnet-lite3", _PTQ, 79.8, 79.0, _LITE),
    Evidence("efficientnet-lite4", _PTQ, 81.5, 80.2, _LITE),
    Evidence("efficientnet-b0", _PTQ, 76.76, 76.74, "Intel Neural Compressor, validated models"),
    Evidence("efficientnet-b0", _PTQ, 77.70, 77.19, "NNCF, published results"),
    Evidence("efficientnet-b0", _PTQ, 76.97, 71.71, "NVIDIA Deep Learning Examples"),
    Evidence(
        "efficientnet-b0", _NAIVE, 85.63, 2.11,
        "fasterai, pull request 55 (Imagenette)", "min-max, symmetric activations",
    ),
    Evidence("efficientnet-b0", _QAT, 76.97, 75.82, "NVIDIA Deep Learning Examples"),
    Evidence("efficientnet-b1", _PTQ, 85.20, 83.60, _MODEL_API),
    Evidence("efficientnet-b2", _PTQ, 86.80, 86.00, _MODEL_API),
    Evidence("efficientnet-b3", _PTQ, 89.40, 89.60, _MODEL_API),
    Evidence("efficientnet-b4", _PTQ, 89.00, 87.60, _MODEL_API),
    Evidence("efficientnet-b5", _PTQ, 90.20, 89.40, _MODEL_API),
    Evidence("resnet50", _PTQ, 75.2, 75.1, _WHITEPAPER, "per-channel"),
    Evidence("inception-v3", _PTQ, 78.0, 78.0, _WHITEPAPER, "per-channel"),
    Evidence("inception-v3", _QAT, 77.33, 77.45, _NNCF),
    Evidence("mobilenet-v2", _PTQ, 71.9, 69.8, _WHITEPAPER, "per-channel"),
    Evidence("mobilenet-v2", _NAIVE, 71.9, 0.1, _WHITEPAPER, "one scale for a whole kernel"),
    Evidence("mobilenet-v2", _QAT, 71.87, 71.07, _NNCF),
    Evidence(
        "mobilenet-v3-large", _PTQ, 74.04, 67.38, "Intel torch-xpu-ops, issue 1801", "torch pt2e"
    ),
    Evidence("mobilenet-v3-large", _QAT, 74.04, 73.00, "torchvision, pull request 3323"),
    Evidence("mobilenet-v3-small", _QAT, 67.66, 66.98, _NNCF),
)  # fmt: skip

_FAMILIES = ("efficientnet-lite", "efficientnet-b", "efficientnetv2-b", "mobilenet-v3", "resnet")
_RELATIVES = {"efficientnetv2-b": "efficientnet-b", "efficientnet-b": "efficientnet-b"}


def evidence_for(backbone: str) -> tuple[Evidence, ...]:
    """What is known of ``backbone``; where nothing is, of its relatives; maybe nothing."""
    own = tuple(item for item in EVIDENCE if item.network == backbone)
    family = next((name for name in _FAMILIES if backbone.startswith(name)), "")
    if own or not family:
        return own
    relative = _RELATIVES.get(family, family)
    return tuple(item for item in EVIDENCE if item.network.startswith(relative))
