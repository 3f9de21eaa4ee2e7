"""The doctor: engines that work, crash, hang or are absent, and what each Bundle needs."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, Callable

import pytest

from smidgen.runtime import ArgumentInvalid, Bundle, doctor
from smidgen.runtime.command import main

MakeBundle = Callable[..., Path]
ENGINES_HERE = ("litert", "onnxruntime")
CRASHES = "import os; os.abort()"
HANGS = "import time; time.sleep(100)"


@pytest.fixture
def planted(tmp_path: Path) -> Callable[[str, str], str]:
    """A folder for PYTHONPATH with a module that shadows an engine."""

    def plant(module: str, code: str) -> str:
        folder = tmp_path / "planted"
        folder.mkdir()
        (folder / f"{module}.py").write_text(code)
        return str(folder)

    return plant


def run_doctor(*arguments: str, path: str = "") -> Any:
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "80"}
    command = [sys.executable, "-m", "smidgen.runtime", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_each_bundle_gets_its_engine(make_bundle: MakeBundle) -> None:
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("onnxruntime")
    paths = [make_bundle("tflite", "int8"), make_bundle("onnx"), Path("absent.tflite")]
    report = doctor.examine([*paths, paths[0]], backends=ENGINES_HERE)
    assert [(one.name, one.state) for one in report.engines] == [
        ("litert", "works"),
        ("onnxruntime", "works"),
    ]
    assert all(one.version[0].isdigit() and one.import_ns > 0 for one in report.engines)
    assert [[(one.name, one.state) for one in needs.engines] for needs in report.bundles] == [
        [("litert", "runs")],
        [("onnxruntime", "runs")],
        [],
    ]
    assert "cannot be opened" in report.bundles[2].problem
    assert [needs.can_run for needs in report.bundles] == [True, True, False]
    assert (report.can_run, report.install) == (False, "")


def test_a_bundle_that_is_too_new_or_answers_wrongly(make_bundle: MakeBundle) -> None:
    pytest.importorskip("ai_edge_litert")
    golden = Bundle.open(make_bundle("tflite")).manifest.golden
    assert golden is not None
    wrong = make_bundle("tflite", golden=dataclasses.replace(golden, label="blue"))
    new = make_bundle("tflite", "int8", minimum_runtime={"litert": "99.1"})
    report = doctor.examine([wrong, new], backends=["litert"])
    (first,), (second,) = (needs.engines for needs in report.bundles)
    assert (first.state, second.state) == ("wrong", "refused")
    assert "'red', expected 'blue'" in first.detail
    assert "needs 99.1 or newer" in second.detail
    assert not report.can_run


def test_without_pillow_nothing_is_called_wrong(
    make_bundle: MakeBundle, planted: Callable[[str, str], str]
) -> None:
    pytest.importorskip("ai_edge_litert")
    path = planted("PIL", "raise ImportError('built for another Python')")
    done = run_doctor(str(make_bundle("tflite")), "--backend", "litert", "--json", path=path)
    report = json.loads(done.stdout)
    assert (done.returncode, report["extras"][0]["state"]) == (0, "broken")
    (found,) = report["bundles"][0]["engines"]
    assert found["state"] == "runs"
    assert found["detail"].startswith("not tested, ")
    assert report["install"].endswith('install "smidgen-runtime[image]"')


def test_a_bundle_without_golden_sample(make_bundle: MakeBundle) -> None:
    pytest.importorskip("ai_edge_litert")
    report = doctor.examine([make_bundle("tflite", golden=None)], backends=["litert"])
    (found,) = report.bundles[0].engines
    assert (found.state, found.detail) == ("runs", "not tested, it has no golden sample")


def test_an_engine_that_crashes_at_import(
    make_bundle: MakeBundle, planted: Callable[[str, str], str]
) -> None:
    pytest.importorskip("onnx")
    path = planted("onnxruntime", CRASHES)
    done = run_doctor(str(make_bundle("onnx")), "--backend", "onnxruntime", path=path)
    assert done.returncode == 1
    assert "onnxruntime   crashed: it ended its process (status -6)" in done.stdout
    assert done.stderr == (
        "smidgen-runtime: error: no engine here runs one of the Bundles; the report says why "
        "and what to install\n"
    )


def test_after_a_crash_the_next_task_is_done(planted: Callable[[str, str], str]) -> None:
    """The extras share one child: OpenCV ends it, the others still have answers."""
    for package in ("PIL", "cryptography"):
        pytest.importorskip(package)
    done = run_doctor("--json", "--backend", "litert", path=planted("cv2", CRASHES))
    states = {one["name"]: one["state"] for one in json.loads(done.stdout)["extras"]}
    assert states["pillow"] == "works"
    assert states["opencv"] == "crashed"
    assert states["cryptography"] == "works"


def test_an_engine_that_hangs(
    planted: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(planted("onnxruntime", HANGS))
    report = doctor.examine(backends=["onnxruntime"], child_seconds=0.5)
    assert report.engines[0].state == "crashed"
    assert report.engines[0].detail == "no answer within 0.5 s"


def test_libraries_that_print_do_not_disturb(planted: Callable[[str, str], str]) -> None:
    path = planted("cv2", "import os; print('hello}'); os.write(1, b'{}\\n')")
    done = run_doctor("--json", "--backend", "litert", path=path)
    report = json.loads(done.stdout)
    assert [one["state"] for one in report["extras"]][:2] == ["works", "works"]


def test_a_folder_with_a_module_of_ours_is_not_searched(tmp_path: Path) -> None:
    """The child imports what this process would, not what lies in the working folder."""
    (tmp_path / "json.py").write_text(CRASHES)
    report = subprocess.run(
        [sys.executable, "-P" if sys.version_info >= (3, 11) else "-I", "-m", "smidgen.runtime",
         "doctor", "--json", "--backend", "litert"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert json.loads(report.stdout)["engines"][0]["state"] == "works"


def test_the_screen_fits_a_terminal(make_bundle: MakeBundle) -> None:
    pytest.importorskip("ai_edge_litert")
    done = run_doctor(str(make_bundle("tflite", "int8")), "--backend", "litert")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) <= 20  # and at most four more for the other engines
    words = [line.split() for line in lines if len(line) > 80]
    assert all(len(one) <= 2 for one in words)  # a path alone may be wider
    headings = [line[:11].strip() for line in lines if line[:11].strip()]
    assert headings == [
        "runtime", "python", "machine", "features", "threads", "memory", "clock", "engines",
        "extras", "bundle", "to install",
    ]  # fmt: skip


def findings(**states: str) -> tuple[doctor.Finding, ...]:
    return tuple(doctor.Finding(name, state) for name, state in states.items())


@pytest.mark.parametrize(
    ("kind", "engines", "has_pillow", "expected"),
    [
        ("tflite", {"litert": "absent"}, True, '"smidgen-runtime[litert]"'),
        ("onnx", {"onnxruntime": "absent"}, False, '"smidgen-runtime[onnx,image]"'),
        (None, {"litert": "absent"}, False, '"smidgen-runtime[litert,image]"'),
        (None, {"litert": "works"}, False, '"smidgen-runtime[image]"'),
        (None, {"litert": "works"}, True, ""),
    ],
)
def test_one_line_installs_what_is_missing(
    kind: str | None, engines: dict[str, str], has_pillow: bool, expected: str
) -> None:
    needs = () if kind is None else (doctor.BundleNeeds("a", model_format=kind),)
    line = doctor.install_line(findings(**engines), needs, has_pillow)
    assert line.endswith(expected)
    assert ("install" in line) == bool(expected)


def test_an_unknown_backend() -> None:
    with pytest.raises(ArgumentInvalid, match="expected some of litert"):
        doctor.examine(backends=["lite"])
    with pytest.raises(SystemExit) as caught:
        main(["doctor", "--backend", "lite"])
    assert caught.value.code == 2


def test_no_python_for_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """An embedded interpreter has no executable."""
    monkeypatch.setattr(sys, "executable", "")
    report = doctor.examine(backends=["litert"])
    assert report.engines[0].state == "crashed"
    assert "no child process can be started" in report.engines[0].detail


def test_long_texts_are_wrapped_under_their_heading(capsys: Any) -> None:
    main(["doctor", "x" * 200, "--backend", "litert"])
    lines = capsys.readouterr().out.splitlines()
    bundle = next(n for n, line in enumerate(lines) if line.startswith("bundle"))
    assert "x" * 200 in "".join(lines[bundle : bundle + 2])
    assert textwrap.dedent(lines[bundle + 1]) != lines[bundle + 1]
