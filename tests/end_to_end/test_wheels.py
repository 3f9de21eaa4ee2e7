"""Both wheels: what is in them, and the device wheel alone on bare devices with either engine."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tomllib
from packaging.requirements import Requirement
from reduced_line import REPO, Line, clean_environment

from smidgen.runtime import Classifier

pytestmark = pytest.mark.slow

RUNTIME_BYTES = 80_000
SOURCES = ("train", "export", "benchmarks", "cli", "runtime", "pyproject.toml", "README.md")
SCORE_TOLERANCE = 1e-4
FOREIGN = {"tensorflow", "keras", "onnx", "matplotlib", "smidgen"}


@dataclass(frozen=True)
class Wheels:
    """The two wheel files."""

    toolchain: Path
    runtime: Path


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Wheels:
    """Both wheels, built from a copy of the sources, with what is installed and nothing fetched."""
    copy = tmp_path_factory.mktemp("sources")
    for name in (*SOURCES, "LICENSE"):
        if (REPO / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist")
            shutil.copytree(REPO / name, copy / name, ignore=ignored)
        else:
            shutil.copy(REPO / name, copy / name)
    dist = tmp_path_factory.mktemp("dist")
    for source in (copy, copy / "runtime"):
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(dist)]
        subprocess.run([*build, str(source)], check=True, capture_output=True)
    (toolchain,) = dist.glob("smidgen-*.whl")
    (runtime,) = dist.glob("smidgen_runtime-*.whl")
    return Wheels(toolchain, runtime)


def _names(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_runtime_wheel_is_small_and_holds_the_runtime_alone(wheels: Wheels) -> None:
    assert wheels.runtime.stat().st_size < RUNTIME_BYTES
    names = {name for name in _names(wheels.runtime) if ".dist-info/" not in name}
    assert {name.rsplit("/", 1)[0] for name in names} == {"smidgen/runtime"}
    assert {"smidgen/runtime/py.typed", "smidgen/runtime/classifier.py"} <= names
    assert any(name.endswith("/LICENSE") for name in _names(wheels.runtime))


def _built(source: Path, out: Path, umask: int) -> dict[str, str]:
    """SHA-256 of the wheel and the sdist of a copy of runtime/, by file name."""
    runtime = out / "some" / "folder"
    shutil.copytree(source, runtime, ignore=shutil.ignore_patterns("__pycache__", "dist", "build"))
    for path in runtime.rglob("*"):
        if umask == 0o077:
            path.chmod(0o700 if path.is_dir() else 0o600)
            os.utime(path, (1_000_000_000, 1_000_000_000))
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(runtime)]
    environment = {**clean_environment(), "TZ": "Asia/Tokyo" if umask == 0o077 else "UTC"}
    subprocess.run(build, check=True, capture_output=True, env=environment, umask=umask)
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.iterdir()
        if path.is_file()
    }


def test_the_runtime_builds_to_the_same_bytes_anywhere_at_any_time(tmp_path: Path) -> None:
    first = _built(REPO / "runtime", tmp_path / "a", 0o022)
    assert len(first) == 2
    assert _built(REPO / "runtime", tmp_path / "elsewhere", 0o077) == first
    # The planted fault: one more byte in one source.
    changed = tmp_path / "changed"
    shutil.copytree(REPO / "runtime", changed, ignore=shutil.ignore_patterns("__pycache__"))
    with open(changed / "smidgen" / "runtime" / "py.typed", "a") as stream:
        stream.write("\n")
    assert not set(_built(changed, tmp_path / "b", 0o022).values()) & set(first.values())


@pytest.mark.parametrize(
    ("extra", "system", "machine", "python", "packages"),
    [
        ("litert", "linux", "x86_64", "3.13", {"ai-edge-litert"}),
        ("litert", "linux", "aarch64", "3.11", {"ai-edge-litert"}),
        ("litert", "linux", "armv7l", "3.11", {"tflite-runtime", "numpy<2"}),
        ("litert", "darwin", "arm64", "3.12", {"ai-edge-litert"}),
        ("tflite", "linux", "armv7l", "3.9", {"tflite-runtime", "numpy<2"}),
        ("tflite", "linux", "aarch64", "3.11", {"tflite-runtime", "numpy<2"}),
        ("tflite", "linux", "x86_64", "3.12", {"ai-edge-litert"}),
        ("tflite", "darwin", "arm64", "3.11", {"ai-edge-litert"}),
        ("onnx", "linux", "aarch64", "3.9", {"onnxruntime"}),
    ],
)
def test_an_extra_takes_the_engine_that_exists(
    extra: str, system: str, machine: str, python: str, packages: set[str]
) -> None:
    project = tomllib.loads((REPO / "runtime" / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == ["numpy"]
    there = {"sys_platform": system, "platform_machine": machine, "python_version": python}
    wanted = [Requirement(text) for text in project["optional-dependencies"][extra]]
    taken = [one for one in wanted if one.marker is None or one.marker.evaluate(there)]
    assert {f"{one.name}{one.specifier}" for one in taken} == packages


def test_the_toolchain_wheel_holds_the_four_rooms_and_shares_no_file(wheels: Wheels) -> None:
    names = {name for name in _names(wheels.toolchain) if ".dist-info/" not in name}
    rooms = {name.split("/")[1] for name in names}
    assert rooms == {"train", "export", "bench", "cli"}
    assert {f"smidgen/{room}/py.typed" for room in rooms} <= names
    assert "smidgen/train/models/imagenet_labels.txt" in names
    assert not names & _names(wheels.runtime)
    assert "smidgen/__init__.py" not in names | _names(wheels.runtime)
    for source in REPO.glob("*/smidgen/*/**/*.py"):
        path = source.relative_to(source.parents[[p.name for p in source.parents].index("smidgen")])
        assert f"smidgen/{path}" in names | _names(wheels.runtime)


@pytest.mark.parametrize(
    ("environment", "engine", "ending"),
    [
        ("runtime-litert", "litert", "int8.tflite"),
        ("runtime-litert", "litert", "float32.tflite"),
        ("runtime-onnx", "onnxruntime", "int8.onnx"),
        ("runtime-onnx", "onnxruntime", "float32.onnx"),
    ],
)
def test_on_a_bare_device_the_answers_are_the_toolchains(
    wheels: Wheels, line: Line, environment: str, engine: str, ending: str
) -> None:
    python = _bare_device(environment, wheels.runtime)
    assert not _installed(python) & FOREIGN
    bundle = line.bundle(ending)
    images = [str(line.digits / str(digit) / "0007.png") for digit in range(10)]
    answers = _device(python, "classify", str(bundle), *images, "--json", "--top", "10")
    assert len(answers) == len(images)
    with Classifier(bundle) as classifier:
        assert classifier.engine_name == engine
        here = [classifier.classify(image, top=10) for image in images]
    assert [answer["label"] for answer in answers] == [answer.label for answer in here]
    differences = [
        abs(there["score"] - mine.score)
        for answer, ours in zip(answers, here, strict=True)
        for there, mine in zip(answer["top"], ours.top, strict=True)
    ]
    assert max(differences) <= SCORE_TOLERANCE
    # The planted fault: the answers to another picture are further away than the tolerance.
    assert abs(answers[0]["score"] - here[1].score) > SCORE_TOLERANCE
    (report,) = _device(python, "selftest", str(bundle), "--json")
    assert report["passed"] is True


def test_the_other_format_is_refused_with_the_engine_that_is_missing(
    wheels: Wheels, line: Line
) -> None:
    python = _bare_device("runtime-onnx", wheels.runtime)
    ended = _run(python, "selftest", str(line.bundle("int8.tflite")))
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert "no engine for .tflite Bundles is installed" in ended.stderr


def _bare_device(environment: str, wheel: Path) -> Path:
    """The Python of an environment with numpy, Pillow, one engine, and our wheel."""
    command = [sys.executable, str(REPO / "tools" / "setup_env.py"), environment]
    done = subprocess.run(
        [*command, "--wheel", str(wheel)], check=True, stdout=subprocess.PIPE, text=True
    )
    return Path(done.stdout.strip())


def _installed(python: Path) -> set[str]:
    code = "import importlib.metadata as m; print(*(d.name.lower() for d in m.distributions()))"
    done = subprocess.run(
        [python, "-P", "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env=clean_environment(),
    )
    names = set(done.stdout.split())
    assert {"numpy", "smidgen-runtime"} <= names
    return names


def _run(python: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    """The installed ``smidgen-runtime`` command, from a folder that is not ours."""
    return subprocess.run(
        [python.parent / "smidgen-runtime", *argv],
        capture_output=True,
        text=True,
        check=False,
        env=clean_environment(),
        cwd="/",
    )


def _device(python: Path, *argv: str) -> list[dict[str, Any]]:
    ended = _run(python, *argv)
    assert ended.returncode == 0, ended.stderr
    return [json.loads(text) for text in ended.stdout.splitlines()]
