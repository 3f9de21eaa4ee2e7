"""A TFLite Bundle as one C header, for firmware with TensorFlow Lite for Microcontrollers.

One source file of the firmware, C or C++, writes ``#define NAME_IMPLEMENTATION`` before including
it and so holds the array; the others include it as it is. The array is the Bundle without the
archive behind it (labels and manifest, which the header says itself): the bytes that the manifest's
``payload_sha256`` vouches for.
"""

from __future__ import annotations

import re
from typing import Any

from smidgen.export.errors import ConversionError
from smidgen.export.formats import tflite_file
from smidgen.export.formats.micro_operators import MICRO_METHODS
from smidgen.export.formats.runtimes import require_target
from smidgen.runtime.bundle import payload_of
from smidgen.runtime.manifest import Manifest, TensorSpec

_ALIGNMENT = tflite_file.BUFFER_ALIGNMENT
_BYTES_IN_A_LINE = 20
_BYTE = [f"{value}," for value in range(256)]
_KEYWORDS = """
    alignas auto bool break case catch char class const continue default delete do double else enum
    extern false float for friend goto if inline int long namespace new operator private protected
    public register restrict return short signed sizeof static struct switch template this throw
    true try typedef typename union unsigned using virtual void volatile while
"""


def c_header(bundle: bytes, manifest: Manifest, arena_bytes: int) -> str:
    """The header's text, ASCII alone; equal arguments give equal text. C99 and C++11 compile it.

    Args:
        bundle: a ``.tflite`` Bundle of scheme ``int8``, labels and pre-processing in ``manifest``.
        manifest: of the Bundle; its name makes the identifiers.
        arena_bytes: RAM for tensors, as ``micro_arena.arena_bytes`` measured it.

    Raises:
        ConversionError: another format or scheme, or an arena that is not positive.
        TargetError: tflite-micro has no kernel for an operator of the file.
        BundleError: the Bundle is damaged.
    """
    if manifest.model_format != "tflite" or manifest.scheme != "int8":
        raise ConversionError(
            f"a C header of a {manifest.scheme} .{manifest.model_format} file: microcontrollers "
            "take int8 .tflite; export that"
        )
    if arena_bytes <= 0:
        raise ConversionError(f"arena_bytes = {arena_bytes}: expected what tflite-micro measured")
    require_target(bundle, "tflite", "tflite-micro")
    payload = payload_of(bundle)
    name = c_identifier(manifest.name)
    methods = _methods(tflite_file.read_model(payload))
    macro = name.upper()
    lines = [
        *_opening(manifest, payload, macro),
        *_constants(manifest, payload, macro, arena_bytes),
        *_operators(methods, macro),
        *_declarations(name, macro),
        f"#ifdef {macro}_IMPLEMENTATION",
        "",
        f"const char *const {name}_labels[{macro}_LABEL_COUNT] = {{",
        *(f"    {_c_string(label)}," for label in manifest.labels),
        "};",
        "",
        f"{macro}_ALIGN const unsigned char {name}_model[{macro}_MODEL_BYTES] = {{",
        *_rows(payload),
        "};",
        "",
        f"#endif /* {macro}_IMPLEMENTATION */",
        "",
        f"#endif /* {macro}_H */",
    ]
    return "\n".join(lines) + "\n"


def c_identifier(name: str) -> str:
    """A lower-case C and C++ identifier made of ``name``: ``toy-int8`` gives ``toy_int8``."""
    words = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "model"
    return f"model_{words}" if words[0].isdigit() or words in _KEYWORDS.split() else words


def _methods(model: Any) -> list[str]:
    """The resolver's methods for the operators of ``model``, each once, sorted."""
    return sorted({MICRO_METHODS[operator] for operator in tflite_file.operators(model)})


def _opening(manifest: Manifest, payload: bytes, macro: str) -> list[str]:
    way = manifest.preprocessing
    area = "whole picture" if way.fit == "stretch" else "centred square"
    share = "" if way.crop_fraction == 1 else f" of {way.crop_fraction:g} of the shorter side"
    title = _comment(manifest.name)
    return [
        f"/* {title}: an image classifier, {len(payload)} bytes, made by smidgen.",
        f" * SHA-256 of the array: {manifest.payload_sha256}",
        f" * Picture: the {area}{share}, {way.resample} with antialiasing to {way.width} x"
        f" {way.height}, RGB.",
        f" * Define {macro}_IMPLEMENTATION in one source file before including this. */",
        f"#ifndef {macro}_H",
        f"#define {macro}_H",
        "",
    ]


def _constants(manifest: Manifest, payload: bytes, macro: str, arena: int) -> list[str]:
    _, height, width, channels = manifest.input.shape
    pairs = [
        ("MODEL_BYTES", str(len(payload))),
        ("LABEL_COUNT", str(len(manifest.labels))),
        ("INPUT_HEIGHT", str(height)),
        ("INPUT_WIDTH", str(width)),
        ("INPUT_CHANNELS", str(channels)),
        ("INPUT_BYTES", str(height * width * channels)),
        *_codes("INPUT", tflite_code(payload, 0), manifest.input),
        *_codes("OUTPUT", tflite_code(payload, 1), manifest.output),
    ]
    return [
        *(f"#define {macro}_{key} {value}" for key, value in pairs),
        "/* RAM for tensors, measured by tflite-micro's reference kernels on a 64-bit machine. */",
        f"#define {macro}_ARENA_BYTES {arena}",
        "",
    ]


def _codes(end: str, code: tuple[float, int], spec: TensorSpec) -> list[tuple[str, str]]:
    """``real = (stored - ZERO_POINT) * SCALE`` of one end, and whether it is int8 or uint8."""
    scale, zero_point = code
    return [
        (f"{end}_SCALE", f"{scale!r}f"),
        (f"{end}_ZERO_POINT", f"({zero_point})"),
        (f"{end}_IS_SIGNED", str(int(spec.dtype == "int8"))),
    ]


def tflite_code(payload: bytes, end: int) -> tuple[float, int]:
    """Scale and zero point of the input (``end`` 0) or output (1), as the file has them.

    Raises:
        ConversionError: that tensor is not quantized with one scale.
    """
    model = tflite_file.read_model(payload)
    tensor = (tflite_file.input_tensor, tflite_file.output_tensor)[end](model)
    code = tensor.quantization
    if code is None or code.scale is None or len(code.scale) != 1:
        raise ConversionError(
            "an end of the file is not quantized with one scale: export int8 with uint8 or int8 "
            "input and output"
        )
    return float(code.scale[0]), int(code.zeroPoint[0])


def _operators(methods: list[str], macro: str) -> list[str]:
    calls = [f"  (resolver).{method}(); \\" for method in methods]
    return [
        f"/* C++: tflite::MicroMutableOpResolver<{macro}_OPERATOR_COUNT> resolver;",
        f" *      {macro}_ADD_OPERATORS(resolver) */",
        f"#define {macro}_OPERATOR_COUNT {len(methods)}",
        f"#define {macro}_ADD_OPERATORS(resolver) \\",
        *calls[:-1],
        calls[-1].removesuffix(" \\"),
        "",
    ]


def _declarations(name: str, macro: str) -> list[str]:
    return [
        "#if defined(__cplusplus)",
        f'#define {macro}_EXTERN extern "C"',
        f"#define {macro}_ALIGN alignas({_ALIGNMENT})",
        "#else",
        f"#define {macro}_EXTERN extern",
        f"#define {macro}_ALIGN __attribute__((aligned({_ALIGNMENT})))",
        "#endif",
        "",
        f"{macro}_EXTERN const char *const {name}_labels[{macro}_LABEL_COUNT];",
        f"{macro}_EXTERN const unsigned char {name}_model[{macro}_MODEL_BYTES];",
        "",
    ]


def _rows(data: bytes) -> list[str]:
    return [
        "    " + "".join(map(_BYTE.__getitem__, data[start : start + _BYTES_IN_A_LINE]))
        for start in range(0, len(data), _BYTES_IN_A_LINE)
    ]


def _c_string(text: str) -> str:
    """A C string literal of the UTF-8 bytes: octal escapes, which a digit behind cannot lengthen.

    ``?`` is escaped too, since two of them begin a trigraph.
    """
    plain = set(range(32, 127)) - {ord(char) for char in '"\\?'}
    return '"' + "".join(chr(b) if b in plain else f"\\{b:03o}" for b in text.encode()) + '"'


def _comment(text: str) -> str:
    """``text`` as ASCII that cannot end a comment or continue a line."""
    return re.sub(r"[^ -~]|[*/\\?]", "_", text)
