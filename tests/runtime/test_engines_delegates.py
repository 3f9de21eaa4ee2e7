"""Delegates and execution providers: fakes, real libraries, what is not on this machine."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from smidgen.runtime import Classifier, EngineFailed
from smidgen.runtime.delegates import LIBRARIES, wants_xnnpack
from smidgen.runtime.engines import ENGINES
from smidgen.runtime.onnxruntime_engine import _check_started, _providers
from smidgen.runtime.tflite_engine import TfliteEngine

MakeBundle = Callable[..., Path]
COMPILER = shutil.which("cc")
PIXELS = np.full((2, 8, 8, 3), (10, 200, 90), np.uint8)

SOURCE = """
typedef struct Delegate {
  void *data; int (*prepare)(void *, struct Delegate *); void *from; void *to; void *free;
  long long flags; void *opaque;
} Delegate;
static int prepare(void *context, Delegate *delegate) { return STATUS; }
static Delegate delegate;
Delegate *tflite_plugin_create_delegate(
    char **keys, char **values, unsigned long count, void (*report)(const char *)) {
  if (count == 1 && keys[0][0] == 'd') { report("no device "); report(values[0]); return 0; }
  delegate.prepare = prepare;
  return &delegate;
}
void tflite_plugin_destroy_delegate(Delegate *made) {}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Compiles a delegate whose ``Prepare`` returns ``status`` (0 well, 1 error, 2 its own error).

    With an option whose key starts with ``d`` it refuses to be made.
    """
    if COMPILER is None:
        pytest.skip("no C compiler: cc")
    folder = tmp_path_factory.mktemp("delegates")

    def compiled(status: int, source: str = SOURCE) -> str:
        path, text = folder / f"delegate{status}.so", folder / "delegate.c"
        text.write_text(source)
        command = [COMPILER, "-shared", "-fPIC", f"-DSTATUS={status}", "-o", str(path), str(text)]
        subprocess.run(command, check=True, capture_output=True)
        return str(path)

    return compiled


@pytest.fixture
def engine() -> TfliteEngine:
    pytest.importorskip("ai_edge_litert")
    found = ENGINES["litert"]
    assert isinstance(found, TfliteEngine)
    return found


def refusal(make_bundle: MakeBundle, backend: Any, delegates: tuple[str, ...]) -> str:
    with pytest.raises(EngineFailed) as caught:
        Classifier(make_bundle("tflite", "int8"), backend=backend, threads=1, delegates=delegates)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("delegates", [("xnnpack",), ("no-xnnpack",)])
def test_xnnpack_on_and_off(
    make_bundle: MakeBundle, engine: TfliteEngine, delegates: tuple[str, ...]
) -> None:
    path = make_bundle("tflite", "int8")
    with Classifier(path, threads=1) as plain:
        expected = plain.scores(PIXELS)
    with Classifier(path, backend=engine, threads=1, delegates=delegates) as classifier:
        assert np.abs(classifier.scores(PIXELS) - expected).max() <= 1 / 256


def test_xnnpack_is_a_switch() -> None:
    assert [wants_xnnpack(names) for names in ((), ("xnnpack",), ("a.so", "no-xnnpack"))] == [
        None,
        True,
        False,
    ]
    with pytest.raises(EngineFailed, match="exclude each other"):
        wants_xnnpack(("xnnpack", "no-xnnpack"))


def test_a_real_library_that_takes_nothing_changes_nothing(
    make_bundle: MakeBundle, engine: TfliteEngine, library: Callable[..., str]
) -> None:
    path = make_bundle("tflite", "int8")
    with Classifier(path, threads=1) as plain:
        expected = plain.scores(PIXELS)
    with Classifier(path, backend=engine, threads=1, delegates=(library(0),)) as classifier:
        np.testing.assert_array_equal(classifier.scores(PIXELS), expected)


@pytest.mark.parametrize("status", [1, 2])
def test_a_delegate_that_fails_on_the_model(
    make_bundle: MakeBundle, engine: TfliteEngine, library: Callable[..., str], status: int
) -> None:
    path = library(status)
    assert f"litert with {path} refused the model (" in refusal(make_bundle, engine, (path,))


def test_a_library_that_refuses_gets_its_options_and_its_words_are_kept(
    make_bundle: MakeBundle, engine: TfliteEngine, library: Callable[..., str]
) -> None:
    with_options = dataclasses.replace(engine, delegate_options=(("device", "usb:7"),))
    said = refusal(make_bundle, with_options, (library(0),))
    assert "refused; check the device and the options (" in said
    assert "no device usb:7" in said


def test_libraries_that_are_none(
    make_bundle: MakeBundle, engine: TfliteEngine, library: Callable[..., str], tmp_path: Path
) -> None:
    junk = tmp_path / "junk.so"
    junk.write_bytes(b"not a library")
    for path in (str(junk), str(tmp_path / "absent.so"), "libnowhere.so.9"):
        assert "cannot be loaded; install it" in refusal(make_bundle, engine, (path,))
    path = library(9, "int nothing;")
    said = refusal(make_bundle, engine, (path,))
    assert "is not a delegate: it has no tflite_plugin_create_delegate" in said


@pytest.mark.parametrize("name", LIBRARIES)
def test_named_delegates_ask_for_their_library(
    make_bundle: MakeBundle, engine: TfliteEngine, name: str
) -> None:
    asked = []

    def no_hardware(path: str, options: dict[str, str]) -> Any:
        asked.append((path, options))
        raise ValueError(f"Failed to load delegate from {path}\nno hardware")

    fake = dataclasses.replace(
        engine, load_delegate=no_hardware, delegate_options=(("device", "usb"),)
    )
    said = refusal(make_bundle, fake, ("xnnpack", name))
    assert asked == [(LIBRARIES[name], {"device": "usb"})]
    assert f"litert: delegate {name!r} ({LIBRARIES[name]}) refused" in said
    assert "no hardware" in said


def test_an_unknown_delegate_names_the_nearest(
    make_bundle: MakeBundle, engine: TfliteEngine
) -> None:
    said = refusal(make_bundle, engine, ("edge-tpu",))
    assert said.startswith("unknown delegate 'edge-tpu': did you mean 'edgetpu'? known delegates: ")
    assert "did you mean" not in refusal(make_bundle, engine, ("zzzzzz",))


def test_options_of_the_other_format_are_refused(make_bundle: MakeBundle) -> None:
    pytest.importorskip("onnxruntime")
    cases = (("onnx", {"delegates": ("gpu",)}), ("tflite", {"providers": ("CPU",)}))
    for model_format, options in cases:
        with pytest.raises(EngineFailed, match=r"(?:delegates|providers) \(given: (?:gpu|CPU)\)"):
            Classifier(make_bundle(model_format), threads=1, **options)  # type: ignore[arg-type]


def test_execution_providers(make_bundle: MakeBundle) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    path = make_bundle("onnx")
    with Classifier(path, threads=1) as plain:
        expected = plain.scores(PIXELS)
    for name in onnxruntime.get_available_providers():
        if name in ("CPUExecutionProvider", "AzureExecutionProvider"):  # need no hardware
            with Classifier(path, threads=1, providers=(name,)) as classifier:
                np.testing.assert_array_equal(classifier.scores(PIXELS), expected)
    with pytest.raises(EngineFailed, match=r"'cpu': did you mean 'CPUExecutionProvider'\? there"):
        Classifier(path, threads=1, providers=("cpu",))
    with pytest.raises(EngineFailed, match=r"provider 'Nnapi': there are: .*CPUExecutionProvider"):
        Classifier(path, threads=1, providers=("Nnapi",))


def test_the_cpu_comes_last_and_once() -> None:
    there = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert _providers("o", (), there) == ["CPUExecutionProvider"]
    assert _providers("o", there[:1], there) == there
    assert _providers("o", there[::-1], there) == there[::-1]
    with pytest.raises(EngineFailed, match="did you mean 'CUDAExecutionProvider'"):
        _providers("o", ("CudaExecutionProvider",), there)


def test_a_provider_that_does_not_start_is_an_error() -> None:
    cuda, cpu = "CUDAExecutionProvider", "CPUExecutionProvider"
    _check_started("onnxruntime", [cpu], [cpu])
    with pytest.raises(EngineFailed, match=f"onnxruntime: {cuda} did not start; install what"):
        _check_started("onnxruntime", [cuda, cpu], [cpu])
