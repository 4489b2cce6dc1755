"""Targets, counts and scores on the device."""

from __future__ import annotations

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import lax

TargetMode = Literal["majority", "soft", "random"]


def weighted_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """sum(weights * values) / sum(weights) of (batch,) arrays; 0 where all weights are 0."""
    total = jnp.sum(weights)
    return jnp.sum(weights * values) / jnp.where(total > 0, total, 1.0)


def reader_targets(readers: jax.Array, mode: TargetMode, rng: jax.Array | None = None, *, slots: int = 4) -> jax.Array:
    """What a segmentation is trained towards, from the readers' bits.

    Args:
      readers: uint8 (batch, height, width); bit r is reader r's mask.
      mode: `majority`: 1 where two or more readers marked the pixel, or the one where only one looked; `soft`: the
        share of readers who did; `random`: the mask of one reader, drawn anew for each image, empty where that one
        marked nothing.
      rng: key, for `random` only.
      slots: readers that looked at each scan.

    Returns:
      float32 (batch, height, width) in [0, 1].

    Raises:
      ValueError: unknown mode, or `random` without a key.
    """
    if mode not in get_args(TargetMode) or (mode == "random" and rng is None):
        raise ValueError(f"mode is {mode!r}; use 'majority', 'soft', or 'random' with a key.")
    if mode == "random":
        assert rng is not None
        slot = jax.random.randint(rng, (readers.shape[0], 1, 1), 0, slots, jnp.int32).astype(jnp.uint8)
        return (jnp.right_shift(readers, slot) & jnp.uint8(1)).astype(jnp.float32)
    marked = lax.population_count(readers)  # uint8; the rare nodule of more than `slots` marks counts them all
    if mode == "majority":
        return (marked >= min(2, slots)).astype(jnp.float32)
    return jnp.minimum(marked.astype(jnp.float32) / slots, 1.0)


def confusion(*, logits: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """Pixel counts of each image: true positive, false positive, false negative, true negative.

    Exact: int32 holds the sum over 8,192 images of 512x512; add up longer runs on the host.

    Args:
      logits: (batch, height, width); positive says nodule.
      targets: bool (batch, height, width).
      weights: (batch,); images with weight 0 count nothing.

    Returns:
      int32 (batch, 4).
    """
    axes = tuple(range(1, logits.ndim))
    predicted = logits > 0
    cells = (predicted & targets, predicted & ~targets, ~predicted & targets, ~predicted & ~targets)
    counts = jnp.stack([jnp.sum(cell, axis=axes, dtype=jnp.int32) for cell in cells], axis=-1)
    return counts * (weights > 0).astype(jnp.int32)[:, None]


def scores(counts: jax.Array) -> dict[str, jax.Array]:
    """Dice, IoU, precision, recall, accuracy of (..., 4) counts as `confusion` gives them, float32 (...).

    Dice and IoU of empty against empty are 1. Precision where nothing was predicted, recall where there was
    nothing to find, and accuracy of no pixels are NaN.
    """
    tp, fp, fn, tn = jnp.moveaxis(jnp.asarray(counts).astype(jnp.float32), -1, 0)
    wrong = fp + fn
    empty = tp + wrong == 0
    return {
        "dice": jnp.where(empty, 1.0, 2 * tp / jnp.where(empty, 1.0, 2 * tp + wrong)),
        "iou": jnp.where(empty, 1.0, tp / jnp.where(empty, 1.0, tp + wrong)),
        "precision": _fraction(tp, tp + fp),
        "recall": _fraction(tp, tp + fn),
        "accuracy": _fraction(tp + tn, tp + tn + wrong),
    }


def _fraction(part: jax.Array, whole: jax.Array) -> jax.Array:
    return jnp.where(whole > 0, part / jnp.where(whole > 0, whole, 1.0), jnp.nan)
