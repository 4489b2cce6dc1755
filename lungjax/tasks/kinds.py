"""Every task by its name in `config.task`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lungjax.ct.scan import READERS
from lungjax.data.context import Context
from lungjax.tasks import classify, diagnose, pretrain, segment, sift
from lungjax.tasks.task import Config, Task

TASKS: dict[str, Callable[..., Task]] = {
    "pretrain": pretrain.make,
    "segment": segment.make,
    "classify": classify.make,
    "sift": sift.make,
    "diagnose": diagnose.make,
}

_ANY_SIDE_PX = 512
"""Of a slice, where it is not known yet: every network takes it."""


def trace_init(config: Config, mesh: Mesh) -> tuple[Any, Any]:
    """Parameters and model state of a configuration's network as shapes and dtypes: nothing is allocated.

    Raises whatever Flax and JAX raise of a configuration of which no network can be made.
    """
    side_px = config.data.get("crop_px", 0) or _ANY_SIDE_PX
    shown = Context.of(config)
    planes = (shown.planes,) if shown.slices else ()
    sample = {
        "image": jax.ShapeDtypeStruct((2, *planes, side_px, side_px), np.float32),
        "inside": jax.ShapeDtypeStruct((2, config.data.get("nodules", 1)), np.float32),
    }
    task = TASKS[config.task](config, intensity="hu", readers=READERS, mesh=mesh)
    return jax.eval_shape(task.init, jax.random.key(0), sample)
