"""Devices as one axis named `data`: batches are split over it, states are replicated on every device."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from lungjax.errors import InputError

DATA_AXIS = "data"


def make_mesh(batch_size: int) -> Mesh:
    """A mesh of all devices of all processes; InputError where `batch_size` cannot be divided evenly among them."""
    devices = jax.device_count()
    if batch_size % devices:
        raise InputError(f"config.data.batch_size {batch_size} is not a multiple of the {devices} devices; change it.")
    return jax.make_mesh((devices,), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


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
