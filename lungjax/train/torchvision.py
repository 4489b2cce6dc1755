"""Converts ResNet weights between torchvision's names and ours, in NumPy, without Torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import flax.traverse_util
import numpy as np

from lungjax.errors import InputError
from lungjax.models.encoder import BLOCKS

DEPTHS = (18, 34, 50)
"""The depths that torchvision has as well."""


def to_encoder(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """{"params", "model_state"} of an encoder with the stem `torchvision` and the norm `batch`.

    The weights of a first convolution on colours are summed over the colours, so that features of a grey image stay the
    same. The final layer, `fc`, is left out.

    Args:
      tensors: the weights by torchvision's names.

    Raises:
      InputError: the names are not those of such a network.
    """
    flat = {}
    for theirs, ours in _names(_depth(tensors)):
        if theirs not in tensors:
            raise InputError(f"{theirs} is missing among the tensors; give a ResNet by torchvision's names.")
        value = np.asarray(tensors[theirs], np.float32)
        if ours[-1] == "kernel":
            value = value.transpose(2, 3, 1, 0)  # (out, in, height, width) -> (height, width, in, out)
            value = value.sum(axis=2, keepdims=True) if theirs == "conv1.weight" else value
        flat[ours] = value
    return flax.traverse_util.unflatten_dict(flat)


def from_encoder(variables: Mapping[str, Any], encoder: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The weights by torchvision's names, with one input channel in `conv1` and without `fc`.

    Args:
      variables: {"params", "model_state"}, each with the encoder's under `encoder`.
      encoder: `config.model.encoder`.

    Raises:
      InputError: torchvision has no such network.
    """
    required = {"stem": "torchvision", "norm": "batch", "width": 64}
    if encoder["depth"] not in DEPTHS or any(encoder[name] != value for name, value in required.items()):
        raise InputError(
            f"torchvision has no such encoder as {dict(encoder)}: stem torchvision, norm batch, width 64 and depth "
            f"{', '.join(map(str, DEPTHS))} only."
        )
    flat, tensors = flax.traverse_util.flatten_dict(dict(variables)), {}
    for theirs, ours in _names(encoder["depth"]):
        value = np.asarray(flat[ours], np.float32)
        tensors[theirs] = value.transpose(3, 2, 0, 1) if ours[-1] == "kernel" else value
    return tensors


def _depth(tensors: Mapping[str, np.ndarray]) -> int:
    blocks = tuple(
        len({name.split(".")[1] for name in tensors if name.startswith(f"layer{stage}.")}) for stage in range(1, 5)
    )
    bottleneck = "layer1.0.conv3.weight" in tensors
    for depth in DEPTHS:
        if BLOCKS[depth] == blocks and (depth == 50) == bottleneck:
            return depth
    raise InputError(f"no tensors of a ResNet of depth {', '.join(map(str, DEPTHS))} by torchvision's names.")


def _names(depth: int) -> Iterator[tuple[str, tuple[str, ...]]]:
    """torchvision's name and our path of every weight of the network except `fc`."""
    yield from _pair("conv1", "bn1", ("stem",), ("stem_norm",))
    for stage, blocks in enumerate(BLOCKS[depth]):
        for block in range(blocks):
            theirs, ours = f"layer{stage + 1}.{block}", f"stage{stage}_block{block}"
            for number in range(3 if depth == 50 else 2):
                convolution, norm = f"{theirs}.conv{number + 1}", f"{theirs}.bn{number + 1}"
                yield from _pair(convolution, norm, (ours, f"Conv_{number}"), (ours, f"BatchNorm_{number}"))
            if not block and (stage or depth == 50):
                down = f"{theirs}.downsample"
                yield from _pair(f"{down}.0", f"{down}.1", (ours, "shortcut"), (ours, "shortcut_norm"))


def _pair(
    convolution: str, norm: str, our_convolution: tuple[str, ...], our_norm: tuple[str, ...]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield f"{convolution}.weight", ("params", "encoder", *our_convolution, "kernel")
    for theirs, ours in (("weight", "scale"), ("bias", "bias")):
        yield f"{norm}.{theirs}", ("params", "encoder", *our_norm, "norm", ours)
    for theirs, ours in (("running_mean", "mean"), ("running_var", "var")):
        yield f"{norm}.{theirs}", ("model_state", "batch_stats", "encoder", *our_norm, "norm", ours)
