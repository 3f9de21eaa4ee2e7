"""The C header, compiled as C and C++ and read back from the program; the arena it asks for."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import subprocess
import sys

import pytest

from smidgen.export.errors import CandidateFailed, ConversionError
from smidgen.export.formats.c_header import c_header, c_identifier
from smidgen.export.formats.micro_arena import arena_bytes
from smidgen.export.formats.micro_arena_worker import answers, smallest
from smidgen.runtime.bundle import Bundle, payload_of

STRICT = ("-Wall", "-Wextra", "-Werror", "-pedantic")
LABELS = ("plain", 'quo"te\\', "??/ trigraph??)", "Grün 🌲1")

ANSWER = """
#include <stdint.h>
#include <stdio.h>
#define TOY_INT8_IMPLEMENTATION
#include "toy.h"
int other(void);
int main(void) {
  int i;
  for (i = 0; i < TOY_INT8_LABEL_COUNT; i++) puts(toy_int8_labels[i]);
  printf("%d %d %.9g %d %.9g %d %d %d %d %d\\n", TOY_INT8_ARENA_BYTES, TOY_INT8_INPUT_BYTES,
         TOY_INT8_INPUT_SCALE, TOY_INT8_INPUT_ZERO_POINT, TOY_INT8_OUTPUT_SCALE,
         TOY_INT8_OUTPUT_ZERO_POINT, TOY_INT8_INPUT_IS_SIGNED, TOY_INT8_OPERATOR_COUNT,
         (int)((uintptr_t)toy_int8_model % 16), other());
  fwrite(toy_int8_model, 1, sizeof toy_int8_model, stdout);
  return 0;
}
"""

OTHER = """
#include "toy.h"
int other(void);
int other(void) {
  return toy_int8_model[4] == 'T' && sizeof toy_int8_model == TOY_INT8_MODEL_BYTES;
}
"""

RESOLVER = """
#include <cstdio>
#define TOY_INT8_IMPLEMENTATION
#include "toy.h"
template <unsigned N> struct Resolver {
  unsigned count = 0;
  void take(const char *name) { if (++count <= N) std::puts(name); }
METHODS
};
int main() {
  Resolver<TOY_INT8_OPERATOR_COUNT> resolver;
  TOY_INT8_ADD_OPERATORS(resolver)
  return resolver.count == TOY_INT8_OPERATOR_COUNT && toy_int8_model[4] == 'T' ? 0 : 1;
}
"""

METHODS = [
    "AddAdd",
    "AddConv2D",
    "AddDepthwiseConv2D",
    "AddFullyConnected",
    "AddMean",
    "AddQuantize",
    "AddSoftmax",
]

needs_compiler = pytest.mark.skipif(
    not (shutil.which("gcc") and shutil.which("g++")), reason="no gcc and g++ on this machine"
)
pytest.importorskip("tflite_micro", reason="tflite-micro is not installed")


@pytest.fixture(scope="module")
def bundle(small_bundles):
    path = small_bundles["tflite", "int8"]
    return path.read_bytes(), Bundle.open(path).manifest


@pytest.fixture(scope="module")
def arena(bundle):
    return arena_bytes(bundle[0])


@pytest.fixture
def header(bundle, arena):
    return c_header(bundle[0], dataclasses.replace(bundle[1], labels=LABELS), arena)


def compile_and_run(folder, header: str, sources: dict[str, str], standard: str) -> bytes:
    compiler = "g++" if "++" in standard else "gcc"
    (folder / "toy.h").write_text(header, encoding="ascii")
    for name, text in sources.items():
        (folder / name).write_text(text)
    command = [compiler, f"-std={standard}", *STRICT, *sources, "-o", "program"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return subprocess.run([folder / "program"], capture_output=True, check=True).stdout


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("standard", ["c99", "c11", "c++11", "c++17"])
def test_the_program_holds_what_the_bundle_says(standard, bundle, header, arena, tmp_path):
    suffix = "cc" if "++" in standard else "c"
    sources = {f"answer.{suffix}": ANSWER, f"other.{suffix}": OTHER}
    said = compile_and_run(tmp_path, header, sources, standard)
    *labels, figures, model = said.split(b"\n", len(LABELS) + 1)
    assert [label.decode() for label in labels] == list(LABELS)
    assert figures.decode() == f"{arena} 3072 0.0078125 127 0.00390625 0 0 7 0 1"
    assert model == payload_of(bundle[0])
    assert hashlib.sha256(model).hexdigest() == bundle[1].payload_sha256


@needs_compiler
@pytest.mark.slow
def test_a_changed_number_in_the_array_is_seen(bundle, header, tmp_path):
    spoilt = header.replace("= {\n    28,0,", "= {\n    29,0,")
    assert spoilt != header
    sources = {"answer.c": ANSWER, "other.c": OTHER}
    said = compile_and_run(tmp_path, spoilt, sources, "c99")
    assert not said.endswith(payload_of(bundle[0]))


@needs_compiler
@pytest.mark.slow
def test_the_resolver_gets_the_files_operators_and_no_others(header, tmp_path):
    methods = "\n".join(f'  void {name}() {{ take("{name}"); }}' for name in METHODS)
    source = {"resolver.cc": RESOLVER.replace("METHODS", methods)}
    said = compile_and_run(tmp_path, header, source, "c++11")
    assert said.decode().split() == METHODS


@pytest.mark.slow
def test_the_arena_is_the_smallest_that_works(bundle, arena):
    assert arena % 16 == 0
    assert answers(bundle[0], arena)
    assert not answers(bundle[0], arena - 16)
    input_and_first_layer = 32 * 32 * 3 + 16 * 16 * 16
    assert input_and_first_layer < arena < 64_000


@pytest.mark.slow
def test_equal_bundles_give_equal_ascii(bundle, arena):
    assert c_header(*bundle, arena) == c_header(*bundle, arena)
    assert c_header(*bundle, arena).isascii()


@pytest.mark.slow
def test_a_file_without_kernels_is_refused_in_one_line(small_bundles, bundle):
    for form, scheme in (("tflite", "float32"), ("onnx", "int8")):
        path = small_bundles[form, scheme]
        with pytest.raises(ConversionError, match=f"{scheme} .{form} file"):
            c_header(path.read_bytes(), Bundle.open(path).manifest, 1000)
    with pytest.raises(ConversionError, match="arena_bytes = 0"):
        c_header(*bundle, 0)


def test_a_worker_that_dies_or_hangs_is_an_error_of_one_line():
    dies = (sys.executable, "-c", "import os, sys; print('no kernel', file=sys.stderr); os.abort()")
    with pytest.raises(CandidateFailed, match=r"died of it \(no kernel\)[^\n]*$"):
        arena_bytes(b"", worker=dies)
    hangs = (sys.executable, "-c", "import time; time.sleep(60)")
    with pytest.raises(CandidateFailed, match=r"no answer for 0\.5 s"):
        arena_bytes(b"", worker=hangs, stall_seconds=0.5)


def test_a_file_that_is_no_model_is_refused_not_crashed():
    with pytest.raises(CandidateFailed, match="tflite-micro refused the file or died"):
        arena_bytes(b"\x1c\x00\x00\x00TFL3" + bytes(64))


@pytest.mark.parametrize("needed", [1, 16, 17, 5_000, (1 << 20) + 1, 3_000_000])
def test_bisection_finds_the_threshold(needed):
    assert smallest(lambda size: size >= needed) == -(-needed // 16) * 16
    assert smallest(lambda _: False) == 0


@pytest.mark.parametrize(
    ("name", "identifier"),
    [
        ("toy-int8", "toy_int8"),
        ("Straße 5 – Lite0", "stra_e_5_lite0"),
        ("9lives", "model_9lives"),
        ("int", "model_int"),
        ("---", "model"),
    ],
)
def test_identifiers(name, identifier):
    assert c_identifier(name) == identifier
