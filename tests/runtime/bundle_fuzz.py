"""Seeded fuzzing of Bundles: mutated files give answers or our exceptions, and nothing else.

    python tests/runtime/bundle_fuzz.py --seed 1 --count 10000

Three kinds of cases in turn, each of both formats:

- ``stale``: bytes of the whole file changed, the hash left as it was;
- ``manifest``: bytes of the manifest's text changed, with its own hash and archive made right;
- ``payload``: bytes of the model changed and every hash recomputed, so that the engine sees hostile
  content. The engine runs in a child process, as with ``isolate=True``.

What opens is asked for an answer in the child. Every case must end in an answer or in an exception
of smidgen's within LIMIT_S; memory of this process and of its children must stay below MAX_BYTES.
Case ``n`` of seed ``s`` is always the same: ``--first n --count 1 --seed s`` repeats it.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import hashlib
import json
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

import numpy as np

from smidgen.runtime import engine_child as wire
from smidgen.runtime.bundle import Bundle, payload_of, payload_sha256
from smidgen.runtime.classifier import Classifier
from smidgen.runtime.container import read, texts_as_stored
from smidgen.runtime.engine import EngineOptions
from smidgen.runtime.engines import ENGINES
from smidgen.runtime.errors import EngineFailed, SmidgenError
from smidgen.runtime.isolation import Child, IsolatedEngine
from smidgen.runtime.selftest import examine
from smidgen.runtime.timing import peak_rss_bytes

LIMIT_S = 10.0
MAX_BYTES = 1_000_000_000
KINDS = ("stale", "manifest", "payload")
ENGINE_OF = {"tflite": "litert", "onnx": "onnxruntime"}
_INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x10)
_WORDS = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF, 0x10000, 0x40000000)
_VALUES = (
    0, 1, -1, 2, 3, 4096, 2**31, 2**63, 10**400, 0.0, 0.5, 1e308, float("nan"), float("inf"),
    "", "x", "\x1b[2J", "\n", "\ud800", "x" * 10_000, None, True, [], [[]], {}, [-1, 3], ["", ""],
)  # fmt: skip

Open = Callable[[Path], Bundle]


@dataclasses.dataclass
class Findings:
    """What came out: how often each ending, and the cases that must not be."""

    endings: Counter[str] = dataclasses.field(default_factory=Counter)
    escapes: list[str] = dataclasses.field(default_factory=list)
    cases: int = 0
    child_deaths: int = 0
    slowest_s: float = 0.0

    def as_text(self) -> str:
        """A line for each ending, and for each escape."""
        own, children = peak_bytes()
        lines = [f"{count:7} {ending}" for ending, count in sorted(self.endings.items())]
        lines += [
            f"{self.cases} cases, slowest {self.slowest_s:.2f} s",
            f"{self.child_deaths} children died",
            f"peak memory: host {own / 1e6:.0f} MB, child {children / 1e6:.0f} MB",
            f"{len(self.escapes)} escapes",
            *self.escapes,
        ]
        return "\n".join(lines)


def peak_bytes() -> tuple[int, int]:
    """Peak resident memory of this process, and of the largest child that has ended."""
    own = peak_rss_bytes() or 0
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return own, children


def mutated(data: bytes, chance: random.Random) -> bytes:
    """``data`` with one to eight changes: bits, bytes, words, cuts, copies, insertions."""
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 8))):
        if len(found) < 8:
            break
        place = chance.randrange(len(found))
        near = found[max(0, place) : place + chance.choice((1, 4, 16, 200))]
        deed = chance.randrange(8)
        if deed == 0:
            found[place] ^= 1 << chance.randrange(8)
        elif deed == 1:
            found[place] = chance.choice(_INTERESTING)
        elif deed in (2, 3):  # offsets and sizes of a flatbuffer are aligned words
            word = (place & ~3) if deed == 2 else place
            value = chance.choice(_WORDS) if chance.random() < 0.7 else chance.getrandbits(32)
            found[word : word + 4] = value.to_bytes(4, "little")[: len(found) - word]
        elif deed == 4:
            found[place] = (found[place] + chance.choice((-1, 1, 2, 16))) & 0xFF
        elif deed == 5:
            del found[place : place + len(near)]
        elif deed == 6:
            found[place:place] = near
        else:
            target = chance.randrange(len(found))
            found[target : target + len(near)] = near
    return bytes(found)


def mutated_json(text: bytes, chance: random.Random) -> bytes:
    """Half of the time other bytes; else JSON still, with a value that is not as it should be."""
    if chance.random() < 0.5:
        return mutated(text, chance)
    mapping = json.loads(text)
    for _ in range(chance.choice((1, 1, 2, 5))):
        place = mapping
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                return b"{}"
            key = chance.choice(keys)
            if not isinstance(place[key], (dict, list)) or not place[key] or chance.random() < 0.1:
                break
            place = place[key]
        place[key] = copy.deepcopy(chance.choice(_VALUES))
    return json.dumps(mapping, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")


def hash_of(payload: bytes) -> str:
    """As a runtime will compute it, where it can."""
    try:
        return payload_sha256(payload)
    except SmidgenError:
        return hashlib.sha256(payload).hexdigest()


def case(kind: str, data: bytes, chance: random.Random) -> bytes:
    """One hostile file made from the sound Bundle ``data``."""
    if kind == "stale":
        return mutated(data, chance)
    parts = read(data)
    form, payload, texts = parts.model_format, payload_of(data), dict(parts.texts)
    key = "smidgen.json" if form == "tflite" else "smidgen.manifest"
    if kind == "manifest":
        texts[key] = mutated_json(texts[key], chance)
    else:
        payload = mutated(payload, chance)
        mapping = json.loads(texts[key])
        mapping["payload_sha256"] = hash_of(payload)
        texts[key] = json.dumps(mapping, sort_keys=True, separators=(",", ":")).encode()
    if form == "onnx":
        texts["smidgen.manifest_sha256"] = hashlib.sha256(texts[key]).hexdigest().encode()
    return payload + texts_as_stored(form, texts, len(payload))


class Fuzzer:
    """Sound Bundles, and a child for each engine, which lives as long as the models let it."""

    def __init__(self, bundles: Sequence[Path], open_bundle: Open = Bundle.open) -> None:
        self._bundles = [(path.suffix, path.read_bytes()) for path in bundles]
        self._open = open_bundle
        self._children: dict[str, Child] = {}
        self.findings = Findings()
        self._before = peak_bytes()  # of a host that did other things: what it took then, it may

    def run(self, seed: int, first: int, count: int, seconds: float, folder: Path) -> Findings:
        """Cases ``first`` to ``first + count``, fewer where ``seconds`` are over."""
        begin = time.monotonic()
        for number in range(first, first + count):
            if time.monotonic() - begin > seconds:
                break
            self._case(seed, number, folder)
            if self.findings.cases % 500 == 0:
                print(f"{self.findings.cases} cases", file=sys.stderr)
        for child in self._children.values():
            child.end()
        own, children = peak_bytes()
        if any(now > max(MAX_BYTES, old) for now, old in zip((own, children), self._before)):
            self.findings.escapes.append(f"memory: {own} bytes here, {children} in a child")
        return self.findings

    def _case(self, seed: int, number: int, folder: Path) -> None:
        chance = random.Random(f"{seed} {number}")
        kind = KINDS[number % len(KINDS)]
        suffix, data = self._bundles[number // len(KINDS) % len(self._bundles)]
        path = folder / f"case{suffix}"
        path.write_bytes(case(kind, data, chance))
        seconds, ending = self._timed_ending(path, number, kind)
        if seconds > LIMIT_S:  # a hang, or a busy machine? Then a sound file is slow there too
            seconds, ending = self._timed_ending(path, number, kind)
            path.write_bytes(data)
            seconds -= self._timed_ending(path, 2, "sound")[0]
        if seconds > LIMIT_S:
            self.findings.escapes.append(f"case {number} ({kind}{suffix}): {seconds:.1f} s longer")
        self.findings.slowest_s = max(self.findings.slowest_s, seconds)
        self.findings.cases += 1
        self.findings.endings[f"{kind}{suffix}: {ending}"] += 1

    def _timed_ending(self, path: Path, number: int, kind: str) -> tuple[float, str]:
        begin = time.monotonic()
        try:
            ending = self._ending(path, whole=number % 50 == 2)
        except SmidgenError as error:
            ending = type(error).__name__
            if not str(error).isprintable() or len(str(error)) > 2000:
                self.findings.escapes.append(f"case {number} ({kind}): message {error!r}")
        except Exception as error:
            ending = f"ESCAPED {type(error).__name__}"
            self.findings.escapes.append(f"case {number} ({kind}): {error!r}")
        return time.monotonic() - begin, ending

    def _ending(self, path: Path, whole: bool) -> str:
        """Open, load, answer. ``whole``: by a new child, as a Classifier of its own does it."""
        bundle = self._open(path)
        manifest = bundle.manifest
        name = ENGINE_OF[manifest.model_format]
        engine = IsolatedEngine(ENGINES[name], LIMIT_S / 2 - 1)
        size = manifest.preprocessing
        pixels = np.full((1, size.height, size.width, 3), 90, np.uint8)
        if whole:
            with Classifier(bundle, backend=engine) as classifier:
                classifier.classify(pixels[0])
                examine(classifier)
            return "answer"
        if name not in self._children or not self._children[name].is_alive():
            self._children[name] = Child(engine)
        child = self._children[name]
        texts = json.dumps(dataclasses.asdict(EngineOptions())), manifest.to_json()
        try:
            child.open(bundle.data, texts)
            most = wire.SIZES.size + 4 * len(manifest.labels)
            shape = wire.SIZES.pack(*pixels.shape[:3])
            child.ask(wire.RUN, engine.limit_s, shape, pixels.data, most=most)
        except EngineFailed as error:
            if child.is_alive():
                raise
            self.findings.child_deaths += 1
            cause = str(error).partition("the model ")[2].partition(";")[0]
            return f"EngineFailed, child {cause}"
        return "answer"


def sound_bundles(folder: Path) -> list[Path]:
    """The Bundles of ``folder``, smallest first."""
    files = [path for path in folder.iterdir() if path.suffix in (".tflite", ".onnx")]
    return sorted(files, key=lambda path: path.stat().st_size)


def main() -> int:
    """The command; exit status 1 where anything escaped."""
    parser = argparse.ArgumentParser(description="fuzz Bundles; see the top of the file")
    parser.add_argument("bundles", nargs="+", type=Path, help="sound .tflite and .onnx Bundles")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    options = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        findings = Fuzzer(options.bundles).run(
            options.seed, options.first, options.count, options.seconds, Path(folder)
        )
    print(f"seed {options.seed}, {time.monotonic() - begin:.0f} s\n{findings.as_text()}")
    return 1 if findings.escapes else 0


if __name__ == "__main__":
    sys.exit(main())
