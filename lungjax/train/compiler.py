"""Options of XLA's compiler for a training step."""

from __future__ import annotations

import functools
import os

import jax
from jax.sharding import Mesh

_YNN = "xla_cpu_experimental_ynn_fusion_type"
_CPU = {_YNN: "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"}
"""What XLA hands to YNNPACK: not the convolutions, unlike by default (jax 0.10). Its own are a bit faster forwards,
and so stay where nothing is trained, but take the gradient of the weights in one thread. Element-wise operations would
make augmentation four times slower, and the rest no faster. docs/results/speed.md has the figures."""


def train_options(mesh: Mesh) -> dict[str, str] | None:
    """Compiler options, for `jax.jit`, of a step that takes gradients on the devices of a mesh.

    None where the devices are no CPUs, where this jaxlib does not know the option, and where the user has set it.
    """
    on_cpu = all(device.platform == "cpu" for device in mesh.devices.flat)
    return _CPU if on_cpu and _YNN not in os.environ.get("XLA_FLAGS", "") and _is_known(tuple(_CPU.items())) else None


@functools.cache
def _is_known(options: tuple[tuple[str, str], ...]) -> bool:
    """Whether this XLA compiles a program with the options: it refuses names and values that it does not know."""
    try:
        jax.jit(lambda: 0, compiler_options=dict(options)).lower().compile()
    except (jax.errors.JaxRuntimeError, ValueError, TypeError):
        return False
    return True
