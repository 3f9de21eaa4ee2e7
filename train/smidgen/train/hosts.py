"""Several processes that train one network together: who they are, and how they find each other.

Each process sees all devices of its host, or those that its launcher gave it; batches are shared by
all devices of all processes. Process 0 leads: it prepares the images and is the only one to write
the Run. JAX does the talking (``jax.distributed``); nothing here needs Keras.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from smidgen.runtime.errors import SchemaError, SmidgenError
from smidgen.train.errors import HostLost, HostsError
from smidgen.train.recipe import TrainRecipe
from smidgen.train.stderr_guard import StderrGuard

_HEARTBEAT_SECONDS = 30
"""A process that is silent for so long counts as lost."""
_FAILED, _INTERRUPTED = 1, 130
_LOST_PATTERN = re.compile(
    r"gloo|nccl|rccl|connection (closed|reset|refused)|coordination", re.IGNORECASE
)
_GOES_ON = "run the same command on every host again, and it goes on from the last checkpoint"


@dataclass(frozen=True)
class Hosts:
    """Which process this is of how many, and where process 0 listens.

    Nothing given: what the launcher says (Slurm, Open MPI, Kubernetes; see
    ``jax.distributed.initialize``), and one process where there is none. ``processes = 1``: one
    process, whatever the launcher says.
    """

    coordinator: str = ""
    processes: int = 0
    process_id: int = -1

    def __post_init__(self) -> None:
        if (self.coordinator, self.process_id) == ("", -1) and self.processes in (0, 1):
            return
        given = (
            f"coordinator = {self.coordinator!r}, processes = {self.processes}, "
            f"process_id = {self.process_id}"
        )
        _, _, port = self.coordinator.rpartition(":")
        if not re.fullmatch(r"[^\s/]+:\d{1,5}", self.coordinator) or not 0 < int(port) < 65536:
            raise SchemaError(f"{given}: expected a coordinator HOST:PORT, on process 0's host")
        if self.processes < 2 or not 0 <= self.process_id < self.processes:
            raise SchemaError(
                f"{given}: expected at least 2 processes, and a process_id of 0 to processes - 1"
            )


@dataclass(frozen=True)
class Group:
    """The processes that train together: this one is ``process`` (from 0) of ``processes``."""

    process: int = 0
    processes: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process prepares and writes for all."""
        return self.process == 0

    def share(self, data: bytes) -> bytes:
        """``data`` of process 0, in every process; all call it, and wait for process 0."""
        if self.processes == 1:
            return data
        from jax.experimental.multihost_utils import broadcast_one_to_all

        size = int(broadcast_one_to_all(np.int32(len(data))))
        sent = np.frombuffer(data if self.leads else bytes(size), np.uint8)
        return np.asarray(broadcast_one_to_all(sent), np.uint8).tobytes()


ALONE = Group()


@contextlib.contextmanager
def joined(hosts: Hosts, recipe: TrainRecipe, note: Callable[[str], None]) -> Iterator[Group]:
    """Find the other processes and belong to them while the block runs.

    When the block fails, the others are not waited for: this process will end with status 1 (130
    after Ctrl-C) without the goodbyes that JAX would wait for.

    Raises:
        HostsError: the processes do not find each other, or ``recipe`` is not for several.
        HostLost: another process ended while the block ran. Where JAX ends the process before this
            can be raised, its line is printed all the same.
    """
    if recipe.schedule.backend != "jax":
        if hosts.processes > 1:
            raise HostsError(
                f"{hosts.processes} processes with schedule.backend = "
                f'{recipe.schedule.backend!r}: several train together on "jax" only'
            )
        yield ALONE
        return
    guard = StderrGuard(f"smidgen: {_lost('it ended, or cannot be reached')}")
    try:
        group = _found(hosts, note)
    except BaseException:
        guard.leave()
        raise
    if group.processes == 1:
        guard.leave()
        yield ALONE
        return
    try:
        _check_devices()
        note(f"process {group.process} of {group.processes}; process 0 writes the Run")
        yield group
        _jax().distributed.shutdown()
    except BaseException as error:
        _leave_at_exit(_INTERRUPTED if isinstance(error, KeyboardInterrupt) else _FAILED)
        if _is_lost(error):
            guard.told()
            raise HostLost(_lost(" ".join(str(error).split())[:200])) from error
        raise
    guard.leave()


def _found(hosts: Hosts, note: Callable[[str], None]) -> Group:
    """The group that ``hosts`` or the launcher names, when all its processes are there."""
    if hosts.processes == 1 or importlib.util.find_spec("jax") is None:  # `select_backend` says so
        return ALONE
    jax = _jax()
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM for itself
    named: dict[str, Any] = {}
    if hosts.processes:
        named = {
            "coordinator_address": hosts.coordinator,
            "num_processes": hosts.processes,
            "process_id": hosts.process_id,
            "cluster_detection_method": "deactivate",
        }
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            jax.distributed.initialize(heartbeat_timeout_seconds=_HEARTBEAT_SECONDS, **named)
    except Exception as error:  # of a launcher's client, too: Kubernetes' has a tree of its own
        if not named and _is_alone(error):
            for warning in caught:  # Kubernetes without its Python package
                note(" ".join(str(warning.message).split()))
            return ALONE
        raise HostsError(
            f"the processes do not find each other ({' '.join(str(error).split())[:200]}): name "
            "them with --coordinator HOST:PORT --processes N --process-id I, or give --processes 1"
        ) from error
    return Group(jax.process_index(), jax.process_count())


def _is_alone(error: Exception) -> bool:
    """Whether ``error`` says that no launcher was found; or that it is too late to look for one,
    because this process has computed with JAX already, alone."""
    text = str(error)
    is_late = "must be called before" in text and _jax().process_count() == 1
    return text.startswith("coordinator_address should be defined") or is_late


def _check_devices() -> None:
    """Raise HostsError unless each process has the same number of devices."""
    jax = _jax()
    devices, own = jax.device_count(), jax.local_device_count()
    if devices != own * jax.process_count():
        raise HostsError(
            f"{devices} devices, {own} of them in process {jax.process_index()} of "
            f"{jax.process_count()}: give each process the same number"
        )


def _is_lost(error: BaseException) -> bool:
    """Whether a computation failed because another process does not answer."""
    is_foreign = isinstance(error, (ValueError, RuntimeError)) and not isinstance(
        error, SmidgenError
    )
    return is_foreign and _LOST_PATTERN.search(str(error)) is not None


def _lost(why: str) -> str:
    return f"another process of this training is lost ({why}): {_GOES_ON}"


def _leave_at_exit(status: int) -> None:
    def leave() -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)

    atexit.register(leave)  # the last one registered is the first one called: before JAX's own


def _jax() -> Any:
    import jax

    return jax
