"""A folder of Bundles on a device, one of them in use; updates survive a power cut at any moment.

In the folder: ``000007-<sha256>.tflite``, models that passed their self-test, by number of
installation and hash of content; ``current``, a small JSON record of their names, the one in use
first, whose replacement switches models; ``.incoming*``, left by an interrupted installation until
the next change. A lost record is made again from the names. No clock is asked.

*Trial*: a model is new until ``ModelStore.classifier`` has opened it in an application and seen its
self-test pass. Meanwhile the record says so, and the folder is locked (``flock``, which goes with
its process): who finds a trial without the lock knows that the other one died of it, by a crash or
a power cut, and goes back to the model before. What is synced when, and why, says ``files``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

from smidgen.runtime.bundle import Bundle
from smidgen.runtime.classifier import Classifier
from smidgen.runtime.engine import Engine
from smidgen.runtime.errors import (
    ArgumentInvalid,
    OutputError,
    SchemaError,
    SmidgenError,
    StoreBusy,
    StoreEmpty,
)
from smidgen.runtime.files import Disk, Files, output_error, publish, sha256_of_file
from smidgen.runtime.schema import as_mapping, build
from smidgen.runtime.selftest import selftest

if TYPE_CHECKING:
    from smidgen.runtime.signatures import KeySource

RECORD_FILE = "current"
_INCOMING = ".incoming"
_MODEL_NAME = re.compile(r"([0-9]{6,18})-([0-9a-f]{64})\.(?:tflite|onnx)")
_NOT_OURS_TO_WRITE = (errno.EACCES, errno.EPERM, errno.EROFS)


@dataclass(frozen=True)
class Installed:
    """A model of a store. ``confirmed``: its trial in an application went well."""

    path: Path
    sha256: str
    confirmed: bool


@dataclass(frozen=True)
class _Model:
    file: str
    confirmed: bool = False

    @property
    def sha256(self) -> str:
        return self.file.partition("-")[2].partition(".")[0]


@dataclass(frozen=True)
class _Record:
    """``models[0]`` is in use. ``on_trial``: it is being opened for the first time, or died so."""

    models: tuple[_Model, ...]
    on_trial: bool = False

    def by_trust(self) -> tuple[_Model, ...]:
        """The models in the order in which to take them without a trial."""
        first = 1 if self.on_trial else 0
        return self.models[first:] + self.models[:first]


class ModelStore:
    """The models of one folder. Several processes may share it; an object is for one thread.

    >>> ModelStore("/var/lib/flowers").install("flowers-int8.tflite")  # an updater # doctest: +SKIP
    >>> store = ModelStore("/var/lib/flowers")  # the application # doctest: +SKIP
    >>> while True:  # doctest: +SKIP
    ...     if store.changed():
    ...         classifier = store.classifier()
    ...     print(classifier.classify(next_photo()).label)
    """

    def __init__(
        self, folder: Union[str, os.PathLike[str]], *, keep: int = 1, files: Optional[Files] = None
    ) -> None:
        """``install`` makes the folder; ``files`` is for tests.

        Raises ArgumentInvalid: ``keep``, the number of older models to keep, is not 1 or more.
        """
        if type(keep) is not int or keep < 1:
            raise ArgumentInvalid(f"keep = {keep!r}: expected a whole number of at least 1")
        self._folder = Path(folder)
        self._keep = keep
        self._files: Files = Disk() if files is None else files
        self._seen = ""
        self._parsed = ("-", _Record(()))  # "-" is no record

    def install(
        self,
        path: Union[str, os.PathLike[str]],
        *,
        trusted_key: Optional[KeySource] = None,
        backend: Union[str, Engine] = "auto",
        isolate: bool = False,
    ) -> Installed:
        """Copy a Bundle into the store, run its self-test there, and make it the current model.

        Whatever goes wrong, and whenever the power goes, the old model is current, or the new one.
        Content that is current already is tested again, and nothing is written.

        Args:
            path: the Bundle; it can be removed afterwards.
            trusted_key: refuse a Bundle without a valid signature, as ``Bundle.open`` does.
            backend: runs the self-test; as ``Classifier``.
            isolate: run the engine in a child process, so that it cannot take this one with it.

        Raises:
            BundleError, EngineError, SelfTestFailed: it cannot be trusted, or does not work here.
            StoreBusy: another process is changing the store.
            OutputError: the disk is full, or the folder cannot be written to.
        """
        options = {"trusted_key": trusted_key, "backend": backend, "isolate": isolate, "threads": 1}
        bundle = Bundle.open(path, trusted_key=trusted_key)
        kind = bundle.manifest.model_format
        self._make_folder()
        with self._locked(wait=False):
            record = self._survivors()
            current = record.models[0] if record.models else _Model("")
            if current.sha256 == bundle.file_sha256 and self._is_intact(current):
                _test(self._folder / current.file, options)
                return self._installed(current)
            number = 1 + max(map(_number, self._model_files()), default=0)
            model = _Model(f"{number:06}-{bundle.file_sha256}.{kind}")
            with self._writing(f"{_INCOMING}.{kind}", bundle.data, model.file) as incoming:
                try:
                    _test(incoming, options)
                except SmidgenError as error:
                    raise type(error)(str(error).replace(str(incoming), str(path))) from error
            self._switch(_Record((model, *self._kept(record.models, bundle.file_sha256))))
            return self._installed(model)

    def current(self) -> Path:
        """The file of the current model; of the one before while that is on trial or damaged.

        Reads the whole file to check it. Raises StoreEmpty: there is no intact model.
        """
        record = None
        while record != self._record():  # again where it was replaced while we looked
            record = self._record()
            for model in record.by_trust():
                if self._is_intact(model):
                    return self._folder / model.file
        raise self._empty("intact model")

    def classifier(self, **options: Any) -> Classifier:
        """The current model, opened; the one before where that fails, with a RuntimeWarning.

        ``options`` are those of ``Classifier``. The first call after ``install`` is the model's
        trial (see the top of this module) and waits while another process changes the store. Who
        has no right to write into the folder makes no trials, but a self-test each time.

        Raises StoreEmpty, or why the current model does not open where no other one does.
        """
        while True:
            record = self._record()
            if not record.models:
                raise self._empty("model")
            if not record.models[0].confirmed:
                return self._on_trial(options)
            try:
                _, classifier = self._first_that_opens(record.models, options)
            except SmidgenError:
                if self._record() == record:  # else: it was replaced while we looked
                    raise
            else:
                self._seen = record.by_trust()[0].file
                return classifier

    def changed(self) -> bool:
        """Whether the current model is another one than ``classifier`` has last opened.

        Reads the small record alone, so that a long-running process can ask between two pictures.
        """
        models = self._record().by_trust()
        return (models[0].file if models else "") != self._seen

    def rollback(self) -> Installed:
        """Go back to the previous model and drop the current one.

        Raises StoreEmpty where no previous one is intact; StoreBusy, OutputError.
        """
        with self._locked(wait=False):
            models = [model for model in self._record().models[1:] if self._is_intact(model)]
            if not models:
                raise self._empty("previous model")
            self._switch(_Record(tuple(models)))
            return self._installed(models[0])

    def history(self) -> tuple[Installed, ...]:
        """The models of the store, the current one first, then the one before it, and so on."""
        return tuple(map(self._installed, self._record().models))

    def _record(self) -> _Record:
        """What the record says; where it is lost or damaged, all models, the newest first, as new.

        A record can name nothing outside the folder.
        """
        try:
            text = (self._folder / RECORD_FILE).read_text(encoding="utf-8")
            if text != self._parsed[0]:
                record = build(_Record, json.loads(text))
                if not record.models or not all(
                    _MODEL_NAME.fullmatch(x.file) for x in record.models
                ):
                    raise ValueError("no models")
                self._parsed = text, record
            return self._parsed[1]
        except (OSError, ValueError, RecursionError, SchemaError):
            pass
        return _Record(tuple(map(_Model, sorted(self._model_files(), key=_number, reverse=True))))

    def _survivors(self) -> _Record:
        """The record without a model that died of its trial. Only under the lock."""
        record = self._record()
        if record.on_trial and len(record.models) > 1:
            _warn(f"{record.models[0].file} did not survive its first use: back to the one before")
            return _Record(record.models[1:])
        return _Record(record.models)

    def _first_that_opens(
        self, models: Sequence[_Model], options: dict[str, Any]
    ) -> tuple[int, Classifier]:
        """The first of ``models`` that opens and, unless confirmed, passes its self-test."""
        reasons: list[Exception] = []
        for place, model in enumerate(models):
            path = self._folder / model.file
            try:
                if not model.confirmed:
                    _test(path, options)
                classifier = Classifier(path, **options)
            except (SmidgenError, MemoryError) as error:
                reasons.append(error)
                continue
            if reasons:
                _warn(f"{reasons[0]}; {model.file} is used instead")
            return place, classifier
        raise reasons[0]

    def _on_trial(self, options: dict[str, Any]) -> Classifier:
        with self._locked(wait=True):
            record = self._survivors()
            models, is_noted = record.models, True
            is_new = not models[0].confirmed  # else: another process was faster, or it died
            try:
                self._switch(_Record(models, on_trial=is_new))
            except OutputError as error:
                is_noted = False
                if getattr(error.__cause__, "errno", None) not in _NOT_OURS_TO_WRITE:
                    models = (
                        models[1:] or models
                    )  # a death that nobody would know of: do not risk it
            try:
                place, classifier = self._first_that_opens(models, options)
            except BaseException:  # alive: perhaps the options are wrong, not the model
                if is_noted:
                    self._switch(record)
                raise
            if is_noted and is_new:
                passed = (_Model(models[place].file, confirmed=True), *models[place + 1 :])
                with contextlib.suppress(OutputError):  # the next one will go back: safe
                    self._switch(_Record(passed))
            self._seen = self._record().by_trust()[0].file
            return classifier

    def _is_intact(self, model: _Model) -> bool:
        try:
            return sha256_of_file(self._folder / model.file) == model.sha256
        except OSError:
            return False

    def _installed(self, model: _Model) -> Installed:
        return Installed(self._folder / model.file, model.sha256, model.confirmed)

    def _model_files(self) -> list[str]:
        return [one.name for one in self._folder.glob("*-*") if _MODEL_NAME.fullmatch(one.name)]

    def _kept(self, models: Sequence[_Model], sha256: str) -> list[_Model]:
        """The older models to keep; the last confirmed one is among them, if there is one."""
        older = [model for model in models if model.sha256 != sha256 and self._is_intact(model)]
        kept = older[: self._keep]
        confirmed = [model for model in older if model.confirmed][:1]
        return kept[:-1] + confirmed if confirmed and confirmed[0] not in kept else kept

    def _switch(self, record: _Record) -> None:
        """Write the record, then remove what it does not name. Raises OutputError."""
        text = json.dumps(as_mapping(record)) + "\n"
        with self._writing(f"{_INCOMING}.json", text.encode("utf-8"), RECORD_FILE):
            pass
        # only now: the record that named these is gone from the disk
        garbage = {*self._model_files()} - {model.file for model in record.models}
        for name in sorted({*garbage, *(one.name for one in self._folder.glob(_INCOMING + "*"))}):
            with contextlib.suppress(OSError):  # it costs space alone
                self._files.remove(self._folder / name)

    @contextlib.contextmanager
    def _writing(self, temporary: str, data: bytes, final: str) -> Iterator[Path]:
        """Write ``data``; when the block ends well it gets its final name. Raises OutputError."""
        incoming = self._folder / temporary
        try:
            self._files.write(incoming, data)
            yield incoming
            publish(incoming, self._folder / final, self._files)
        except BaseException as error:
            with contextlib.suppress(OSError):
                self._files.remove(incoming)
            if isinstance(error, OSError):
                raise output_error(self._folder, error) from error
            raise

    def _make_folder(self) -> None:
        missing = [one for one in (self._folder, *self._folder.parents) if not one.exists()]
        try:
            for folder in reversed(missing or [self._folder]):
                self._files.make_folder(folder)
                self._files.sync_folder(folder.parent)
        except OSError as error:
            raise output_error(self._folder, error) from error

    @contextlib.contextmanager
    def _locked(self, *, wait: bool) -> Iterator[None]:
        """One at a time changes the store; where there is no ``flock`` (Windows): see to it."""
        try:
            import fcntl
        except ImportError:
            yield
            return
        try:
            handle = os.open(self._folder, os.O_RDONLY)
        except OSError as error:
            raise self._empty(f"model ({error.strerror})") from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except OSError as error:
                raise StoreBusy(
                    f"{self._folder} cannot be locked ({error.strerror}): wait until the other "
                    "process is done, or put the store on a file system that has locks"
                ) from error
            yield
        finally:
            with contextlib.suppress(OSError):  # a forked child would keep the lock otherwise
                fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)

    def _empty(self, what: str) -> StoreEmpty:
        return StoreEmpty(
            f"{self._folder} holds no {what}: install a Bundle (`smidgen-runtime update "
            f"{self._folder} MODEL`)"
        )


def _test(path: Path, options: dict[str, Any]) -> None:
    with Classifier(path, **options) as classifier:
        selftest(classifier)


def _number(name: str) -> int:
    return int(name.partition("-")[0])


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=4)
