"""The standard TFLite Metadata table: what other people's clients read about an image classifier.

Field numbers follow the public schema ``metadata_schema.fbs`` (tensorflow/tflite-support, root
``ModelMetadata``, identifier ``M001``). Written by table slots with the ``flatbuffers`` package,
since no package that carries the generated bindings is small.

No NormalizationOptions are written: the input is ``uint8`` and takes pixels as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import flatbuffers

from smidgen.runtime.manifest import LABELS_FILE, MANIFEST_FILE, Manifest

ENTRY_NAME = "TFLITE_METADATA"
IDENTIFIER = b"M001"
MIN_PARSER_VERSION = "1.0.0"

_DESCRIPTIONS, _TENSOR_AXIS_LABELS = 1, 2  # enum AssociatedFileType
_RGB = 1  # enum ColorSpaceType
_FEATURE_PROPERTIES, _IMAGE_PROPERTIES = 1, 2  # union ContentProperties


def metadata_buffer(manifest: Manifest) -> bytes:
    """The flatbuffer of ``manifest``'s name, tensors and files; equal manifests, equal bytes."""
    builder = flatbuffers.Builder(4096)
    tables = _Tables(builder)
    size = manifest.preprocessing
    image = tables.tensor(
        name=manifest.input.name,
        description=f"RGB picture, {size.width} x {size.height} pixels, values 0 to 255",
        content=tables.image_content(size.width, size.height),
        low=0.0,
        high=255.0,
        files=[],
    )
    is_quantized = manifest.output.dtype == "uint8"
    scores = tables.tensor(
        name=manifest.output.name,
        description="probability of each label",
        content=tables.feature_content(),
        low=0.0,
        high=255.0 if is_quantized else 1.0,
        files=[tables.file(LABELS_FILE, "one label per output value", _TENSOR_AXIS_LABELS)],
    )
    graph = tables.table(
        [
            (0, tables.text(manifest.name)),
            (2, tables.vector([image])),
            (3, tables.vector([scores])),
        ],
        slots=7,
    )
    model = tables.table(
        [
            (0, tables.text(manifest.name)),
            (1, tables.text(f"image classifier with {len(manifest.labels)} labels")),
            (2, tables.text(manifest.provenance.weights_sha256[:12])),
            (3, tables.vector([graph])),
            (
                6,
                tables.vector(
                    [tables.file(MANIFEST_FILE, "manifest of smidgen-runtime", _DESCRIPTIONS)]
                ),
            ),
            (7, tables.text(MIN_PARSER_VERSION)),
        ],
        slots=8,
    )
    builder.Finish(model, file_identifier=IDENTIFIER)
    return bytes(builder.Output())


class _Tables:
    """Writes the schema's tables; each method returns the offset of what it wrote."""

    def __init__(self, builder: flatbuffers.Builder) -> None:
        self._builder = builder

    def text(self, value: str) -> int:
        return int(self._builder.CreateString(value))

    def vector(self, offsets: Sequence[int]) -> int:
        self._builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        return int(self._builder.EndVector())

    def floats(self, values: Sequence[float]) -> int:
        self._builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            self._builder.PrependFloat32(value)
        return int(self._builder.EndVector())

    def table(self, fields: Sequence[tuple[int, int]], slots: int) -> int:
        """A table of ``slots`` fields, those in ``fields`` (slot, offset) being set."""
        self._builder.StartObject(slots)
        for slot, offset in fields:
            self._builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
        return int(self._builder.EndObject())

    def file(self, name: str, description: str, kind: int) -> int:
        """AssociatedFile: name, description, type, locale."""
        name_at, description_at = self.text(name), self.text(description)
        self._builder.StartObject(4)
        self._builder.PrependUOffsetTRelativeSlot(0, name_at, 0)
        self._builder.PrependUOffsetTRelativeSlot(1, description_at, 0)
        self._builder.PrependInt8Slot(2, kind, 0)
        return int(self._builder.EndObject())

    def image_content(self, width: int, height: int) -> int:
        """Content of ImageProperties: color_space, default_size."""
        builder = self._builder
        builder.StartObject(2)
        builder.PrependUint32Slot(0, width, 0)
        builder.PrependUint32Slot(1, height, 0)
        size = builder.EndObject()
        builder.StartObject(2)
        builder.PrependInt8Slot(0, _RGB, 0)
        builder.PrependUOffsetTRelativeSlot(1, size, 0)
        return self._content(_IMAGE_PROPERTIES, int(builder.EndObject()))

    def feature_content(self) -> int:
        """Content of FeatureProperties, which has no fields."""
        self._builder.StartObject(0)
        return self._content(_FEATURE_PROPERTIES, int(self._builder.EndObject()))

    def _content(self, kind: int, properties: int) -> int:
        """Content: content_properties (a union: type, then value), range."""
        self._builder.StartObject(3)
        self._builder.PrependUint8Slot(0, kind, 0)
        self._builder.PrependUOffsetTRelativeSlot(1, properties, 0)
        return int(self._builder.EndObject())

    def tensor(  # noqa: PLR0913 (one argument per field of the table)
        self,
        *,
        name: str,
        description: str,
        content: int,
        low: float,
        high: float,
        files: Sequence[int],
    ) -> int:
        """TensorMetadata: name, description, content, stats and associated files."""
        maximum, minimum = self.floats([high]), self.floats([low])
        stats = self.table([(0, maximum), (1, minimum)], slots=2)
        fields = [
            (0, self.text(name)),
            (1, self.text(description)),
            (3, content),
            (5, stats),
        ]
        if files:
            fields.append((6, self.vector(files)))
        return self.table(fields, slots=7)
