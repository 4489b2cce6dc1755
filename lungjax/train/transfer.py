"""Starting from another network: from all its weights, or from its encoder's; and a pretrained decoder's."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from lungjax.data.context import Context
from lungjax.errors import InputError
from lungjax.train.state import TrainState
from lungjax.train.trained import Trained

_STEM = "params/encoder/stem/kernel"
Flat = dict[str, Any]
"""Arrays by their path in the network, which begins with `params` or `model_state`."""


def load_weights(state: TrainState, source: Trained, *, task: str, planes: int = 1) -> tuple[TrainState, str]:
    """Loads the weights of `source` into `state`: the whole network if it was trained for the same `task` and all
    arrays have the same shapes; otherwise its encoder, and of a pretraining with a decoder a segmenter takes that, too.

    A network that is shown neighbouring slices (`config.data.context`; `planes` in all) takes the weights of one that
    is not, with 0 as the neighbours' weights in its first convolution: it begins with the other's outputs, and learns
    to look further.

    Returns:
      The new state, and a sentence that says what was loaded and what was not.

    Raises:
      InputError: a parameter of the encoder, or of the pretrained decoder, is missing in `source` or has another shape;
        the message names both shapes. Or `source` is shown other neighbouring slices.
    """
    fresh: Flat = flax.traverse_util.flatten_dict({"params": state.params, "model_state": state.model_state}, sep="/")
    theirs: Flat = flax.traverse_util.flatten_dict(source.variables, sep="/")
    theirs = _widened(given := theirs, fresh, source, planes)
    whole = source.config.task == task and _shapes(theirs) == _shapes(fresh)
    decoder = (task, source.config.task) == ("segment", "pretrain") and any(map(_is_decoder, theirs))
    chosen = [name for name in fresh if whole or "encoder" in name.split("/") or (decoder and _is_decoder(name))]
    for name in chosen:
        if name not in theirs or theirs[name].shape != fresh[name].shape:
            problem = f"has shape {theirs[name].shape}" if name in theirs else "is missing"
            raise InputError(
                f"config.init_from {source.path}: {name} {problem} there, and has {fresh[name].shape} here; "
                f"give both runs the same config.model.{'decoder' if _is_decoder(name) else 'encoder'}."
            )
    placed = {name: jax.device_put(np.asarray(theirs[name]), fresh[name].sharding) for name in chosen}
    merged = flax.traverse_util.unflatten_dict(fresh | placed, sep="/")
    start = {"params": merged["params"], "model_state": merged.get("model_state", {})}
    part = "encoder and the decoder" if any(map(_is_decoder, chosen)) else "encoder"
    rest = f"{part} loaded, {len(fresh) - len(chosen)} others start from random weights"
    loaded = "network loaded, all of them" if whole else rest
    summary = f"init_from {source.path} (step {source.step}): {len(chosen)} arrays of the {loaded}."
    summary += "" if theirs is given else " Neighbouring slices begin with weights of 0."
    average = None if state.average is None else jax.tree.map(jnp.copy, tuple(start.values()))
    return dataclasses.replace(state, **start, average=average), summary


def _widened(theirs: Flat, fresh: Flat, source: Trained, planes: int) -> Flat:
    """`theirs`, whose first convolution has the channels of `planes` planes where it had those of one."""
    own, wanted = (np.shape(arrays.get(_STEM, ())) for arrays in (theirs, fresh))
    if (slices := Context.of(source.config).slices) and own != wanted:
        raise InputError(
            f"config.init_from {source.path}: was trained with config.data.context={slices}, and its first convolution "
            "does not fit here; set the same config.data.context and config.model.encoder."
        )
    if planes == 1 or len(own) != 4 or wanted != (*own[:2], own[2] * planes, own[3]):
        return theirs
    stem = np.zeros((*own[:3], planes, own[3]), np.float32)  # Of each pixel of a patch, its planes.
    stem[..., planes // 2, :] = theirs[_STEM]
    return theirs | {_STEM: stem.reshape(wanted)}


def _is_decoder(name: str) -> bool:
    """Whether an array belongs to a U-Net's decoder, without its head; statistics of its norms do."""
    return re.search(r"/(up|level)\d", name) is not None


def _shapes(arrays: Flat) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}
