"""Devices as one axis named `data`: batches are split over it; states are replicated on every device, or split, too."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lungjax.errors import InputError

DATA_AXIS = "data"
PARAMETERS = ("replicated", "sharded")
"""Words of `config.mesh.parameters`."""
LEAST_SHARDED = 2**12
"""Numbers in an array; a smaller one is not worth the talk between devices."""


def make_mesh(batch_size: int) -> Mesh:
    """A mesh of all devices of all processes; InputError where `batch_size` cannot be divided evenly among them."""
    devices = jax.device_count()
    if batch_size % devices:
        raise InputError(f"config.data.batch_size {batch_size} is not a multiple of the {devices} devices; change it.")
    return jax.make_mesh((devices,), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def state_shardings(state: Any, mesh: Mesh, *, parameters: str) -> Any:
    """The sharding of each array of a training's state.

    Args:
      state: arrays, or their shapes.
      mesh: the devices.
      parameters: `replicated`; or `sharded` (FSDP, Zhao et al. 2023): of each array of at least `LEAST_SHARDED`
        numbers, the longest axis that the devices can divide evenly is split over them, and others are replicated. The
        arrays of optimizer and moving average have the shapes of the parameters, and are split as those.
    """

    def of(array: Any) -> NamedSharding:
        axes = [axis for axis, size in enumerate(array.shape) if size % mesh.devices.size == 0]
        if parameters == "replicated" or math.prod(array.shape) < LEAST_SHARDED or not axes:
            return replicated(mesh)
        return split(mesh, axis=max(axes, key=lambda axis: array.shape[axis]))

    return jax.tree.map(of, state)


def split(mesh: Mesh, *, axis: int = 0) -> NamedSharding:
    """Arrays whose given axis is split over the devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, DATA_AXIS))


def to_devices(batch: Any, mesh: Mesh, *, axis: int = 0) -> Any:
    """This process's share of a batch -> global arrays, whose given axis is split over the mesh."""
    sharding = split(mesh, axis=axis)
    with jax.transfer_guard("allow"):  # This is the only transfer of a step that is intended.
        return jax.tree.map(
            lambda part: jax.make_array_from_process_local_data(sharding, np.ascontiguousarray(part)), dict(batch)
        )


def to_every_device(tree: Any, mesh: Mesh) -> Any:
    """Arrays that every process has -> the same on every device."""
    sharding = replicated(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x, x.shape), tree)
