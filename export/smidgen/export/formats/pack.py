"""Model file plus Manifest makes a Bundle, byte for byte the same from the same input.

- ``.tflite``: the TFLite Metadata table goes into the flatbuffer; ``labels.txt`` and
  ``smidgen.json`` follow in a zip archive appended to it, stored uncompressed (which MediaPipe
  needs) with the zip format's first date.
- ``.onnx``: the manifest and its hash are ``metadata_props`` entries.

Verdict and golden sample are known only after a first Bundle has run: ``with_findings`` adds them
without touching the payload.
"""

from __future__ import annotations

import dataclasses
import hashlib

import onnx

from smidgen.export.errors import MetadataError
from smidgen.export.formats import tflite_file
from smidgen.export.formats.tflite_metadata import ENTRY_NAME, metadata_buffer
from smidgen.runtime.bundle import labels_text, onnx_properties, payload_of, payload_sha256
from smidgen.runtime.container import texts_as_stored
from smidgen.runtime.errors import BundleError
from smidgen.runtime.manifest import (
    LABELS_FILE,
    MANIFEST_FILE,
    GoldenSample,
    Manifest,
    Verdict,
)


def pack(model: bytes, manifest: Manifest) -> tuple[bytes, Manifest]:
    """A Bundle of a model file: its bytes, and ``manifest`` with its payload hash filled in.

    Raises:
        MetadataError: a label that ``labels.txt`` cannot hold, or a Bundle that does not read back.
    """
    _check_labels(manifest.labels)
    if manifest.model_format == "tflite":
        parsed = tflite_file.read_model(model)
        tflite_file.set_metadata_entry(parsed, ENTRY_NAME, metadata_buffer(manifest))
        payload = tflite_file.write_model(parsed)
    else:
        payload = model
    return _bundle(payload, manifest)


def with_findings(
    bundle: bytes, manifest: Manifest, verdict: Verdict, golden: GoldenSample | None
) -> tuple[bytes, Manifest]:
    """The same Bundle with ``verdict`` and ``golden`` in its manifest; the model bytes are equal.

    Raises:
        MetadataError: the payload changed on the way.
    """
    found = dataclasses.replace(manifest, verdict=verdict, golden=golden)
    data, packed = _bundle(payload_of(bundle), found)
    if packed.payload_sha256 != manifest.payload_sha256:
        raise MetadataError(
            "the model bytes changed after they were judged: this is a bug, report it"
        )
    return data, packed


def _bundle(payload: bytes, manifest: Manifest) -> tuple[bytes, Manifest]:
    digest = hashlib.sha256(payload).hexdigest()
    if manifest.model_format == "onnx":
        digest = payload_sha256(payload)
    packed = dataclasses.replace(manifest, payload_sha256=digest)
    if manifest.model_format == "tflite":
        data = payload + _archive(packed, len(payload))
    else:
        data = _with_properties(payload, onnx_properties(packed))
    try:
        is_same = payload_sha256(data) == digest
    except BundleError as error:
        raise MetadataError(f"the Bundle does not read back ({error}): report this") from error
    if not is_same:
        raise MetadataError("the Bundle reads back with another payload: this is a bug, report it")
    return data, packed


def _archive(manifest: Manifest, offset: int) -> bytes:
    """The zip archive for a file in which it starts at byte ``offset``."""
    texts = {LABELS_FILE: labels_text(manifest), MANIFEST_FILE: manifest.to_json().encode("utf-8")}
    return texts_as_stored("tflite", texts, offset)


def _with_properties(payload: bytes, properties: dict[str, str]) -> bytes:
    model = onnx.load_from_string(payload)
    kept = [entry for entry in model.metadata_props if entry.key not in properties]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    for key, value in properties.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    return bytes(model.SerializeToString(deterministic=True))


def _check_labels(labels: tuple[str, ...]) -> None:
    for label in labels:
        if not label or label != label.strip() or len(label.splitlines()) != 1:
            raise MetadataError(
                f"the label {label!r} cannot be a line of {LABELS_FILE}: give its folder a name "
                "without line breaks, leading or trailing spaces"
            )
