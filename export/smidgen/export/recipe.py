"""Everything that decides what export makes of a float model: seven tables of a recipe file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from smidgen.runtime.errors import SchemaError
from smidgen.runtime.manifest import Scheme
from smidgen.runtime.schema import setting

Format = Literal["tflite", "onnx"]


@dataclass(frozen=True)
class ExportRecipe:
    """Which files to make, how to quantize them, and how much accuracy they may lose.

    The defaults make four Bundles: ``float32`` and ``int8``, each as ``.tflite`` and ``.onnx``. On
    64 px EfficientNet-Lite0 with 1,250 held-out images that takes under three minutes on two cores.
    """

    formats: tuple[Format, ...] = setting(("tflite", "onnx"), help="model file formats to write")
    schemes: tuple[Scheme, ...] = setting(
        ("float32", "int8"),
        help="number formats: float32; float16 weights; int8 weights (dynamic: with activations "
        "quantized as they come; weights-int8: made float again); int8 weights and activations; "
        "int16x8: int16 activations",
    )
    calibration_images: int = setting(
        200,
        help="training images that set the int8 activation ranges, spread over the classes",
        low=10,
        high=10_000,
    )
    max_drop: float = setting(
        1.0,
        help="percentage points of top-1 that a file may lose against the float model",
        low=0,
        high=100,
    )
    ends: Literal["uint8", "int8", "float32"] = setting(
        "uint8",
        help="what an int8 .tflite takes and gives (uint8: every client; int8: bare integer "
        "kernels; float32: pixels 0..255 in, probabilities out)",
    )
    targets: tuple[str, ...] = setting(
        (),
        help="runtimes that every file must fit: litert, tflite-runtime, onnxruntime, each with "
        "==VERSION if wanted; tflite-micro; edgetpu-ready",
        flag="--for",
    )
    c_header: bool = setting(False, help="also write a C header of each int8 .tflite, for firmware")
    undecided: Literal["warn", "fail"] = setting(
        "warn", help="what to do where the held-out images are too few to tell pass from fail"
    )
    name: str = setting("", help="stem of the file names; empty: the name of the Run or model")

    def __post_init__(self) -> None:
        """Raises SchemaError for an empty or repeated list, or a name that is not a file stem."""
        for key, values in (("formats", self.formats), ("schemes", self.schemes)):
            if not values or len(set(values)) != len(values):
                raise SchemaError(
                    f"export.{key} = {list(values)}: expected at least one choice, each named once"
                )
        if "/" in self.name or "\\" in self.name or self.name.startswith("."):
            raise SchemaError(f"export.name = {self.name!r}: expected a file name without folders")


@dataclass(frozen=True)
class QuantizationRecipe:
    """How int8 files get their scales, zero points and integers: the ``[quantization]`` table."""

    calibrator: Literal["min-max", "percentile", "entropy", "mse"] = setting(
        "mse",
        help="how a range is chosen from the activations seen: all of them, a percentile, least "
        "information lost (KL), or least square error",
    )
    percentile: float = setting(
        99.99, help="of calibrator percentile: share of values inside", low=50, high=100
    )
    weight_scales: Literal["per-channel", "per-tensor"] = setting(
        "per-channel", help="a scale for each output channel, or one for the whole kernel"
    )
    equalize: bool = setting(
        True, help="scale channels against each other, function unchanged, so that ranges are alike"
    )
    bias_correction: bool = setting(
        True, help="shift biases by the mean error that quantization makes in each channel"
    )
    float_layers: tuple[str, ...] = setting((), help="names of layers that stay float32")
    mixed: int = setting(
        0,
        help="how many more layers stay float32: those that cost the most accuracy",
        low=0,
        high=1000,
    )
    onnx_activations: Literal["measured", "u8", "s8"] = setting(
        "measured",
        help="how the int8 .onnx stores activations, the same numbers either way: what is faster "
        "on this machine, uint8, or int8",
    )


@dataclass(frozen=True)
class ChannelsRecipe:
    """Structured pruning: whole channels go, the network gets smaller and faster ([channels])."""

    keep: float = setting(
        1.0,
        help="share of multiply-adds, and of int8 bytes, to keep by removing channels (1: off)",
        low=0.05,
        high=1,
        flag="--keep-channels",
    )
    criterion: Literal["surgeon", "taylor", "bn-scale", "l2"] = setting(
        "surgeon",
        help="which channels matter: what others cannot make good, loss change, batch norm scale, "
        "or kernel norm",
    )
    steps: int = setting(
        1,
        help="prune and tune by turns, in this many steps",
        low=1,
        high=50,
        flag="--channels-steps",
    )
    epochs: int = setting(
        4,
        help="tuning epochs after the last step; a quarter of them after each before",
        low=0,
        high=1000,
    )
    learning_rate: float = setting(1e-4, help="peak of the tuning", low=0, high=10)
    teacher_share: float = setting(
        0.9,
        help="share of the loss that the unpruned network's answers decide",
        low=0,
        high=1,
        flag="--channels-teacher-share",
    )
    hint_weight: float = setting(
        3.0,
        help="weight of the unpruned network's features, where shortcuts are added, in the loss",
        low=0,
        high=1000,
        flag="--channels-hint-weight",
    )


@dataclass(frozen=True)
class SparsityRecipe:
    """Magnitude pruning: single weights become zero; only the zipped file shrinks ([sparsity])."""

    share: float = setting(
        0.0,
        help="share of zero weights in each kernel (0: off)",
        low=0,
        high=0.99,
        flag="--sparsity",
    )
    pattern: Literal["single", "2:4", "block-1x16"] = setting(
        "single", help="single weights; 2 of each 4 in a row; blocks of 16 output channels"
    )
    epochs: int = setting(4, help="tuning epochs while weights are removed", low=1, high=1000)
    learning_rate: float = setting(1e-4, help="peak of the tuning", low=0, high=10)


@dataclass(frozen=True)
class ClusteringRecipe:
    """Weight clustering: few distinct weights in each kernel; the zipped file shrinks."""

    clusters: int = setting(
        0,
        help="distinct weights in each kernel, zero among them: of an even number one is left out "
        "(0: off)",
        low=0,
        high=256,
    )
    epochs: int = setting(1, help="tuning epochs with clustered weights", low=0, high=1000)
    learning_rate: float = setting(3e-5, help="peak of the tuning", low=0, high=10)


@dataclass(frozen=True)
class QatRecipe:
    """Quantization-aware training: int8's rounding is learnt with ([qat])."""

    epochs: int = setting(
        0, help="epochs of quantization-aware training (0: off)", low=0, high=1000
    )
    learning_rate: float = setting(1e-5, help="peak of the training", low=0, high=10)


@dataclass(frozen=True)
class DecisionsRecipe:
    """How sure a file says it is, and when it does not answer: the ``[decisions]`` table."""

    temperature_scaling: bool = setting(
        True,
        help="fit on the validation images, for each file, how sure its answers are (the labels "
        "stay as they are)",
    )
    answered_accuracy: float = setting(
        0.0,
        help="percent of the answers given that must be right, with 95 % confidence on the "
        "validation images: less sure ones abstain (0: every answer is given)",
        low=0,
        high=99.99,
    )


@dataclass(frozen=True)
class BudgetRecipe:
    """What the one file looked for may cost ([budget]); without a limit nothing is looked for."""

    max_ms: float = setting(
        0.0, help="median latency of one inference, one thread, in ms (0: no limit)", low=0
    )
    max_bytes: int = setting(0, help="bytes of the file (0: no limit)", low=0)
    on: str = setting("local", help="the device that the latency is of")

    @property
    def is_set(self) -> bool:
        """Whether there is anything to look for."""
        return bool(self.max_ms or self.max_bytes)


@dataclass(frozen=True)
class ExportPlan:
    """Everything that decides what export makes of one float model."""

    export: ExportRecipe = field(default_factory=ExportRecipe)
    quantization: QuantizationRecipe = field(default_factory=QuantizationRecipe)
    channels: ChannelsRecipe = field(default_factory=ChannelsRecipe)
    sparsity: SparsityRecipe = field(default_factory=SparsityRecipe)
    clustering: ClusteringRecipe = field(default_factory=ClusteringRecipe)
    qat: QatRecipe = field(default_factory=QatRecipe)
    decisions: DecisionsRecipe = field(default_factory=DecisionsRecipe)

    @property
    def passes(self) -> tuple[str, ...]:
        """The passes that change the network, in their order, by the names of their tables."""
        wanted = {
            "channels": self.channels.keep < 1,
            "sparsity": self.sparsity.share > 0 or self.sparsity.pattern == "2:4",
            "clustering": self.clustering.clusters > 0,
            "qat": self.qat.epochs > 0,
        }
        return tuple(name for name, is_wanted in wanted.items() if is_wanted)

    @property
    def changes_network(self) -> bool:
        """Whether a float32 file is another network than the float model."""
        return bool({"channels", "sparsity", "clustering"} & set(self.passes))
