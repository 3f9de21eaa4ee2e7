"""A share of the fuzzing of Bundles, and that it would find what it looks for."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

from smidgen.runtime import Bundle
from smidgen.runtime.container import read

HERE = Path(__file__).parent
MakeBundle = Callable[..., Path]
SEED = 20261123


def load_fuzz() -> Any:
    """The command's module, which no package holds."""
    spec = importlib.util.spec_from_file_location("bundle_fuzz", HERE / "bundle_fuzz.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["bundle_fuzz"] = module
    spec.loader.exec_module(module)
    return module


fuzz = load_fuzz()


@pytest.fixture
def bundles(make_bundle: MakeBundle) -> list[Path]:
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("onnxruntime")
    return [make_bundle("tflite"), make_bundle("tflite", "int8"), make_bundle("onnx")]


@pytest.mark.slow
def test_mutated_bundles_give_answers_or_our_errors(bundles: list[Path]) -> None:
    """At most 3,000 cases, fewer where 45 s are over; a process of its own, for its memory."""
    command = [sys.executable, str(HERE / "bundle_fuzz.py"), *map(str, bundles)]
    command += ["--seed", str(SEED), "--count", "3000", "--seconds", "45"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    found = re.findall(r"^ *(\d+) (\w+)\.\w+: (.+)$", done.stdout, re.MULTILINE)
    assert sum(int(count) for count, _, _ in found) >= 100
    assert {kind for _, kind, _ in found} == {"stale", "manifest", "payload"}
    assert {"EngineFailed", "answer"} <= {ending for _, _, ending in found}


def test_a_few_cases(bundles: list[Path], tmp_path: Path) -> None:
    findings = fuzz.Fuzzer(bundles).run(SEED, 0, 30, 60.0, tmp_path)
    assert (findings.cases, findings.escapes) == (30, [])


def test_an_exception_of_others_would_be_found(bundles: list[Path], tmp_path: Path) -> None:
    """Planted: a reader that takes the manifest for JSON."""

    def careless(path: Path) -> Bundle:
        texts = read(path.read_bytes()).texts
        json.loads(texts.get("smidgen.json", b"{}"))
        return Bundle.open(path)

    findings = fuzz.Fuzzer(bundles, careless).run(3, 0, 60, 60.0, tmp_path)
    assert len(findings.escapes) >= 1
    assert "Error(" in findings.escapes[0]


def test_a_message_of_two_lines_would_be_found(bundles: list[Path], tmp_path: Path) -> None:
    from smidgen.runtime import NotABundle

    def chatty(path: Path) -> Bundle:
        raise NotABundle(f"{path}:\nno")

    findings = fuzz.Fuzzer(bundles, chatty).run(3, 0, 3, 60.0, tmp_path)
    assert len(findings.escapes) == 3


def test_a_case_can_be_repeated(bundles: list[Path]) -> None:
    import random

    data = bundles[0].read_bytes()
    for kind in fuzz.KINDS:
        first, again, other = (fuzz.case(kind, data, random.Random(seed)) for seed in (1, 1, 2))
        assert first == again
        assert first != other
