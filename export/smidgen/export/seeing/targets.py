"""What a network's parts mean on each target: one function for each, and ``TARGETS`` names them.

Sources: XNNPACK's list of operators in LiteRT (its quantized operators have no HARD_SWISH and no
AVERAGE_POOL_2D); ONNX Runtime's integer kernels (QLinear...); tflite-micro's operator resolver;
coral.ai's list of Edge TPU operators; LiteRT's GPU delegate (``model_builder.cc``); Google's notes
on EfficientNet-EdgeTPU (2019) and EfficientNet-Lite (2020), which both took squeeze-and-excite and
swish out for such hardware; Android's notice that NNAPI is deprecated from version 15 on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from smidgen.export.formats.micro_operators import MICRO_METHODS
from smidgen.export.seeing.anatomy import Anatomy

TargetName = Literal["litert", "onnxruntime", "tflite-micro", "edgetpu", "gpu", "nnapi"]
TARGET_NAMES: tuple[TargetName, ...] = get_args(TargetName)
Word = Literal["fine", "costs", "breaks"]
WORDS: tuple[Word, ...] = get_args(Word)

_NOT_IN_XNNPACK_INT8 = frozenset({"HARD_SWISH", "AVERAGE_POOL_2D", "GELU", "RELU_0_TO_1", "PRELU"})
_NOT_IN_ONNXRUNTIME_INT8 = frozenset({"HARD_SWISH", "ELU", "GELU", "TANH", "PRELU"})
_NOT_IN_EDGETPU = frozenset({"HARD_SWISH", "LEAKY_RELU", "ELU", "GELU", "RELU_0_TO_1"})
_NOT_IN_GPU = frozenset({"GELU", "RELU_0_TO_1", "REDUCE_MAX"})

_KILO = 1000
_EDGETPU_BYTES = 8_000_000
"""Of parameters that the Edge TPU keeps on its chip (coral.ai: about 8 MB)."""

_CHIP_RAM, _CHIP_FLASH = 256 * _KILO, 1_000 * _KILO
"""What boards with one Cortex-M4 or -M33 have (Arduino Nano 33 BLE, nRF52840, many STM32)."""

_LARGE_RAM, _LARGE_FLASH = 8_000 * _KILO, 16_000 * _KILO
"""What the largest boards have in chips beside the processor (ESP32-S3 with PSRAM, Portenta H7)."""

_MICRO_BYTES_PER_CHANNEL = 8
"""tflite-micro keeps a multiplier and a shift for each output channel in its arena."""


@dataclass(frozen=True)
class Traits:
    """What the targets ask about a network; ``lite`` is the network of the Lite family to take."""

    anatomy: Anatomy
    image_size: int
    channels: int
    int8_bytes: int
    lite: str

    @property
    def arena_bytes(self) -> int:
        """RAM that tflite-micro needs for an int8 file, at least."""
        return self.anatomy.peak_numbers + _MICRO_BYTES_PER_CHANNEL * self.channels

    def layers_with(self, kind: str) -> int:
        """How many operators of a kind there are."""
        return self.anatomy.counts.get(kind, 0)


@dataclass(frozen=True)
class Finding:
    """One thing that ``verdict`` says of a target; ``count`` is how many layers it is about.

    ``why``: what it does there. ``instead``: what to do; empty where nothing needs to be done.
    ``what``: what the subject is, the same for all targets.
    """

    verdict: Word
    subject: str
    count: int
    why: str
    instead: str = ""
    what: str = ""


@dataclass(frozen=True)
class TargetVerdict:
    """The worst verdict of the findings, and these; ``name`` is spelt out in ``TARGETS``."""

    target: TargetName
    verdict: Word
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Target:
    """A place where a file may run; ``judge`` says what would hurt there."""

    name: str
    judge: Callable[[Traits], Iterator[Finding]]


def judged(target: TargetName, traits: Traits) -> TargetVerdict:
    """What would hurt a network with ``traits`` on ``target``, worst first."""
    findings = [*_unknown(traits), *TARGETS[target].judge(traits)]
    findings.sort(key=lambda finding: -WORDS.index(finding.verdict))
    return TargetVerdict(target, findings[0].verdict, tuple(findings))


def _unknown(traits: Traits) -> Iterator[Finding]:
    layers = traits.anatomy.unknown
    if layers:
        yield Finding(
            "breaks", "unknown layer", len(layers), f"no operator is known for {layers[0]}",
            "replace the layer, or try: an export fails at once if it cannot be converted",
        )  # fmt: skip


def _litert(traits: Traits) -> Iterator[Finding]:
    for kind in sorted(_NOT_IN_XNNPACK_INT8 & set(traits.anatomy.counts)):
        yield Finding(
            "costs", kind, traits.layers_with(kind),
            "XNNPACK has no int8 form: TFLite's own, slower kernel runs, between two delegates",
            f"use {traits.lite}, or ship float16",
        )  # fmt: skip
    yield from _gates_and_swish(traits, "two more passes over a whole activation")
    yield from _lone_batch_norms(traits)
    yield Finding(
        "fine", "convolutions", _convolutions(traits),
        "fast in float32 and int8: EfficientNet-Lite0 took 4.2 ms as int8, 9.7 ms as float32 "
        "(1 thread, x86 with VNNI)",
    )  # fmt: skip


def _onnxruntime(traits: Traits) -> Iterator[Finding]:
    for kind in sorted(_NOT_IN_ONNXRUNTIME_INT8 & set(traits.anatomy.counts)):
        yield Finding(
            "costs", kind, traits.layers_with(kind),
            "no integer kernel: dequantized, computed in float, quantized again",
            f"use {traits.lite}, or ship float32",
        )  # fmt: skip
    yield from _gates_and_swish(traits, "two more integer kernels on a whole activation")
    yield from _lone_batch_norms(traits)
    yield Finding(
        "fine", "convolutions", _convolutions(traits),
        "integer kernels on CPUs with dot-product instructions (x86 VNNI, Arm dotprod); without "
        "them int8 was slower than float (onnxruntime issues 20052 and 26143): measure there",
    )  # fmt: skip


def _micro(traits: Traits) -> Iterator[Finding]:
    for kind in sorted(set(traits.anatomy.counts) - set(MICRO_METHODS)):
        yield Finding(
            "breaks", kind, traits.layers_with(kind), "tflite-micro has no kernel for it",
            f"use {traits.lite}",
        )  # fmt: skip
    ram, flash = traits.arena_bytes, traits.int8_bytes
    yield Finding(
        _size_word(ram, _CHIP_RAM, _LARGE_RAM), "RAM", 1,
        f"at least {_mega(ram)} of arena, as int8: {_boards(ram, _CHIP_RAM, _LARGE_RAM)}",
        _smaller_images(traits),
    )  # fmt: skip
    yield Finding(
        _size_word(flash, _CHIP_FLASH, _LARGE_FLASH), "flash", 1,
        f"{_mega(flash)} of model, as int8: {_boards(flash, _CHIP_FLASH, _LARGE_FLASH)}",
        "" if flash <= _CHIP_FLASH else "prune channels ([channels] keep), or a smaller network",
    )  # fmt: skip
    yield from _gates_and_swish(traits, "slow reference kernels, and more RAM at the peak")


def _edgetpu(traits: Traits) -> Iterator[Finding]:
    for kind in sorted(_NOT_IN_EDGETPU & set(traits.anatomy.counts)):
        yield Finding(
            "breaks", kind, traits.layers_with(kind),
            "no Edge TPU operator: all behind the first one runs on the CPU",
            f"use {traits.lite}",
        )  # fmt: skip
    if traits.int8_bytes > _EDGETPU_BYTES:
        yield Finding(
            "costs", "size", 1,
            f"{_mega(traits.int8_bytes)} of parameters for 8 MB on the chip: the rest is sent over "
            "the bus for each image",
            "prune channels, or a smaller network",
        )  # fmt: skip
    yield from _gates_and_swish(traits, "poorly suited: EfficientNet-EdgeTPU was made without")
    yield from _lone_batch_norms(traits)
    yield Finding("fine", "convolutions", _convolutions(traits), "int8 only, batch 1")


def _gpu(traits: Traits) -> Iterator[Finding]:
    for kind in sorted(_NOT_IN_GPU & set(traits.anatomy.counts)):
        yield Finding(
            "costs", kind, traits.layers_with(kind), "not in the delegate: the CPU takes over",
            f"use {traits.lite}",
        )  # fmt: skip
    yield from _gates_and_swish(traits, "small operators that a GPU is not kept busy by")
    yield Finding(
        "fine", "float16", 1,
        "computes in float16; an int8 file is made float again there: no faster, only smaller",
        "ship float16 to the GPU",
    )  # fmt: skip


def _nnapi(traits: Traits) -> Iterator[Finding]:
    yield Finding(
        "costs", "NNAPI", 1,
        "deprecated since Android 15; what a phone's driver takes differs from phone to phone",
        "use LiteRT on the CPU or the GPU, and measure on the phone",
    )  # fmt: skip
    yield from _gates_and_swish(traits, "drivers often hand such operators back to the CPU")


def _gates_and_swish(traits: Traits, why: str) -> Iterator[Finding]:
    anatomy = traits.anatomy
    if anatomy.squeeze_excite:
        yield Finding(
            "costs", "squeeze-excite", len(anatomy.squeeze_excite),
            why, f"use {traits.lite}: it has none",
            "pooling, two small convolutions and a product in each block",
        )  # fmt: skip
    if anatomy.swish:
        yield Finding(
            "costs", "swish", len(anatomy.swish), why,
            f"use {traits.lite}: ReLU6 costs nothing", "x * sigmoid(x), as LOGISTIC and MUL",
        )  # fmt: skip


def _lone_batch_norms(traits: Traits) -> Iterator[Finding]:
    names = traits.anatomy.lone_batch_norms
    if names:
        yield Finding(
            "costs", "BatchNorm alone", len(names),
            "stays as MUL and ADD, each a pass over the activation",
            'train with model.head = "linear"' if names[0].startswith("head_") else "",
            f"{names[0]} has no convolution right before it to be folded into",
        )  # fmt: skip


def _convolutions(traits: Traits) -> int:
    return sum(map(traits.layers_with, ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")))


def _size_word(size: int, small: int, large: int) -> Word:
    return "fine" if size <= small else "costs" if size <= large else "breaks"


def _boards(size: int, small: int, large: int) -> str:
    if size <= small:
        return "most boards have it"
    return "needs a memory chip beside the processor" if size <= large else "no common board has it"


def _smaller_images(traits: Traits) -> str:
    """Activations go with the square of the image's side, the rest stays."""
    if traits.arena_bytes <= _CHIP_RAM:
        return ""
    fits = []
    fixed = traits.arena_bytes - traits.anatomy.peak_numbers
    for budget in (_CHIP_RAM, 2 * _CHIP_RAM, 4 * _CHIP_RAM):
        share = max(0, budget - fixed) / traits.anatomy.peak_numbers
        side = int(traits.image_size * math.sqrt(share)) // 32 * 32
        if 32 <= side < traits.image_size:
            fits.append(f"--image-size {side} for {budget // _KILO} kB")
    return ", ".join(fits) or "a smaller network: no image size brings it below 1 MB"


def _mega(size: int) -> str:
    return f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{round(size / 1e3)} kB"


TARGETS: dict[TargetName, Target] = {
    "litert": Target("LiteRT on a CPU (XNNPACK)", _litert),
    "onnxruntime": Target("ONNX Runtime on a CPU", _onnxruntime),
    "tflite-micro": Target("tflite-micro on a microcontroller", _micro),
    "edgetpu": Target("Coral Edge TPU", _edgetpu),
    "gpu": Target("LiteRT's GPU delegate", _gpu),
    "nnapi": Target("Android's NNAPI", _nnapi),
}
