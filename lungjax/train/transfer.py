"""Starting from another network: its encoder's parameters."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from lungjax.lidc.scan import InputError
from lungjax.train.state import TrainState
from lungjax.train.trained import Trained


def load_encoder(state: TrainState, source: Trained) -> tuple[TrainState, str]:
    """Puts the encoder of `source` into `state`.

    Returns:
      The new state and a sentence on what was loaded and what was not.

    Raises:
      InputError: a parameter is missing there or has another shape; names it with both shapes.
    """
    loaded = 0
    merged = {}
    for part in ("params", "model_state"):
        target_flat: dict[str, Any] = flax.traverse_util.flatten_dict(getattr(state, part), sep="/")
        source_flat: dict[str, Any] = flax.traverse_util.flatten_dict(source.variables[part], sep="/")
        for name, value in target_flat.items():
            if "encoder" not in name.split("/"):
                continue
            theirs = source_flat.get(name)
            if theirs is None or theirs.shape != value.shape:
                found = "is missing" if theirs is None else f"has shape {theirs.shape}"
                raise InputError(
                    f"config.init_from {source.path}: {name} {found} there, {value.shape} here; "
                    "give both runs the same config.model.encoder."
                )
            target_flat[name] = jax.device_put(np.asarray(theirs), value.sharding)
            loaded += 1
        merged[part] = flax.traverse_util.unflatten_dict(target_flat, sep="/")
    total = len(jax.tree.leaves((state.params, state.model_state)))
    said = (
        f"init_from {source.path} (step {source.step}): {loaded} arrays of the encoder loaded; "
        f"{total - loaded} others start fresh; all else of that run is left out."
    )
    start = {"params": merged["params"], "model_state": merged["model_state"]}
    average = None if state.average is None else jax.tree.map(jnp.copy, tuple(start.values()))
    return dataclasses.replace(state, **start, average=average), said
