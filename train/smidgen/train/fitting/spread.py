"""All devices of all processes as one: who has what of the numbers of a step (JAX only)."""

from __future__ import annotations

from typing import Any

import jax
import keras
import numpy as np


class Spread:
    """Data parallelism: every device has all variables and an equal part of each batch.

    The layouts are those of ``keras.distribution.DataParallel``. Keras' own variables stay on one
    device of each process, so that what one process does alone (pictures, files) waits for nobody;
    a step works on copies of their values that lie as this class says.
    """

    def __init__(self) -> None:
        self._distribution = keras.distribution.DataParallel(auto_shard_dataset=False)
        mesh = self._distribution.device_mesh.backend_mesh
        self.everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def on_all(self, value: Any) -> Any:
        """``value``, the same in every process, on every device."""
        return jax.make_array_from_process_local_data(self.everywhere, np.asarray(value))

    def in_parts(self, own: np.ndarray) -> Any:
        """The batch ``(N, ...)`` of which ``own`` is this process's part."""
        layout = self._distribution.get_data_layout(own.shape).backend_layout
        return jax.make_array_from_process_local_data(layout, own)


def here(value: Any) -> Any:
    """What lies ``on_all`` devices, on the first of this process."""
    return value.addressable_data(0)


def device_count() -> int:
    """Devices of all processes."""
    return int(jax.device_count())
