"""Options of XLA's compiler for the steps of a run."""

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


_DETERMINISTIC_GPU = {"xla_gpu_deterministic_ops": "True"}
"""Of two GPU runs the same bits: no sums in the order in which threads end, and no choice of kernels by the clock. On a
CPU and on a TPU that is so anyway."""


def train_options(mesh: Mesh, *, deterministic: bool = False) -> dict[str, str] | None:
    """Compiler options, for `jax.jit`, of a step that takes gradients on the devices of a mesh.

    Args:
      mesh: of the devices.
      deterministic: `config.deterministic`, as in `step_options`.

    Returns:
      On CPUs what makes it faster, where this jaxlib knows the option and the user has not set it; else what
      `step_options` returns.
    """
    on_cpu = all(device.platform == "cpu" for device in mesh.devices.flat)
    if on_cpu and _YNN not in os.environ.get("XLA_FLAGS", "") and _is_known(tuple(_CPU.items())):
        return _CPU
    return step_options(mesh, deterministic=deterministic)


def step_options(mesh: Mesh, *, deterministic: bool) -> dict[str, str] | None:
    """Compiler options, for `jax.jit`, of any step of a run.

    Args:
      mesh: of the devices.
      deterministic: whether GPUs must compute the same bits each time, which can make them slower.

    Returns:
      None where nothing needs to be asked for.
    """
    on_gpu = any(device.platform in ("gpu", "cuda", "rocm") for device in mesh.devices.flat)
    return _DETERMINISTIC_GPU if deterministic and on_gpu else None


@functools.cache
def _is_known(options: tuple[tuple[str, str], ...]) -> bool:
    """Whether this XLA compiles a program with the options: it refuses names and values that it does not know."""
    try:
        jax.jit(lambda: 0, compiler_options=dict(options)).lower().compile()
    except (jax.errors.JaxRuntimeError, ValueError, TypeError):
        return False
    return True
