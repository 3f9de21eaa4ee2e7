"""Who takes part: one explicit table of quantizers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

ROOM = "smidgen.bench.quantization."


@dataclass(frozen=True)
class Contender:
    """A quantizer: the worker module that drives it, its method there, and where it runs.

    ``environment``: the name of an environment of ``tools/environments.py``; empty: the toolchain's
    own, in a process of its own all the same.
    """

    name: str
    worker: str
    method: str
    suffix: Literal[".tflite", ".onnx"]
    environment: str = ""
    is_ours: bool = False

    @property
    def stem(self) -> str:
        """The name as a file name without suffix."""
        return "-".join(re.findall("[a-z0-9]+", self.name.lower()))


CONTENDERS = (
    Contender("smidgen .tflite", "smidgen_worker", "tflite", ".tflite", is_ours=True),
    Contender("smidgen .onnx", "smidgen_worker", "onnx", ".onnx", is_ours=True),
    Contender("TFLiteConverter", "tflite_worker", "default", ".tflite"),
    Contender("onnxruntime default", "onnxruntime_worker", "default", ".onnx"),
    Contender("onnxruntime u8s8 per-channel", "onnxruntime_worker", "u8s8", ".onnx"),
    Contender("NNCF default", "nncf_worker", "default", ".onnx", "rival-nncf"),
    Contender("NNCF preset mixed", "nncf_worker", "mixed", ".onnx", "rival-nncf"),
    Contender("ai-edge-quantizer static", "aeq_worker", "static", ".tflite", "rival-aeq"),
)
