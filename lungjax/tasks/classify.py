"""Grading of nodules: malignant or not as the readers judge it, and their nine ratings."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lungjax import losses, metrics
from lungjax.ct.scan import Intensity
from lungjax.data import augment, distort
from lungjax.data.intensity import window
from lungjax.models.encoder import ResNet
from lungjax.models.nodule_net import NoduleNet
from lungjax.tasks.task import Config, Metrics, Task

HIGHEST = (5, 4, 6, 5, 5, 5, 5, 5, 5)
"""Of the ratings, in the order of `RATING_NAMES`; the lowest is 1."""
STEPS = tuple((name, above) for name, highest in enumerate(HIGHEST) for above in range(1, highest))
"""Of each ordinal logit the number of the rating, and the value that the rating is above."""

_OUTLINE_WEIGHT = 10.0
"""Of the outline's cross entropy, for most pixels are easy."""
_BINS = 2000
"""Of probability, for the ROC AUC of a validation."""


def network(config: Config) -> NoduleNet:
    """The network of a configuration: a logit of malignancy, then one for each of `STEPS`."""
    dtype = jnp.dtype(config.compute_dtype)
    return NoduleNet(
        encoder=ResNet(**config.model.encoder, dtype=dtype),
        width=config.model.width,
        hidden=config.model.hidden,
        outputs=1 + len(STEPS),
        pixel_mm=config.patch.pixel_mm,
        dropout=config.model.dropout,
        dtype=dtype,
    )


def make_nodule_classifier(config: Config) -> Callable[..., dict[str, jax.Array]]:
    """The network on patches as they are: (params, model_state, hu, spacing_mm) -> predictions by name.

    `hu` is (n, height, width) with a nodule in the middle of each patch, `spacing_mm` (n,) between pixel centres.
    Predicts, in float32, `logit` (n,) of malignancy; `ratings` (n, 9), the expected ones in the order of
    `lungjax.ct.scan.RATING_NAMES`; and `above` (n, STEPS), the chance that a reader's rating is above each value of
    `STEPS`. Test-time augmentation: logits are means over the eight turns and flips of a patch.
    """
    model = network(config)
    resampled = functools.partial(distort.resample, order=1, side_px=config.patch.side_px)
    shift_px = jnp.zeros(2, jnp.float32)

    def classifier(params: Any, model_state: Any, hu: jax.Array, spacing_mm: jax.Array) -> dict[str, jax.Array]:
        def one(patch: jax.Array, mm: jax.Array) -> jax.Array:
            return resampled(patch, jnp.eye(2, dtype=jnp.float32) * (config.patch.pixel_mm / mm), shift_px)

        images = window(jax.vmap(one)(hu.astype(jnp.float32), spacing_mm), tuple(config.patch.window_hu))[..., None]
        turned = [jnp.rot90(side, turns, axes=(1, 2)) for turns in range(4) for side in (images, images[:, :, ::-1])]
        variables = {"params": params, **model_state}
        # One after the other: eight at once would need eight times the memory.
        logits = jax.lax.map(lambda x: model.apply(variables, x, train=False)[0], jnp.stack(turned))  # pyright: ignore[reportIndexIssue, reportOptionalSubscript]
        logits = jnp.mean(logits, axis=0)
        above = jax.nn.sigmoid(logits[:, 1:])
        return {"logit": logits[:, 0], "ratings": expected_ratings(logits[:, 1:]), "above": above}

    return classifier


def expected_ratings(logits: jax.Array) -> jax.Array:
    """Ordinal logits (n, STEPS) -> (n, 9): one, and the chances of being above each value added up."""
    above = jax.nn.sigmoid(logits)
    member = np.array([[name == number for number in range(len(HIGHEST))] for name, _ in STEPS], np.float32)
    return 1.0 + jnp.matmul(above, member, precision=jax.lax.Precision.HIGHEST)


def ordinal_targets(ratings: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What the ordinal logits should be.

    Args:
      ratings: int32 (batch, readers, 9), 0 where a reader gave none.

    Returns:
      float32 (batch, STEPS): the share of the readers whose rating is above each value, and the weight of each, the
      root of how many readers gave the rating.
    """
    given = (ratings > 0).astype(jnp.float32)
    number = jnp.sum(given, axis=1)  # (batch, 9)
    name, above = (np.array(part, np.int32) for part in zip(*STEPS, strict=True))
    marked = jnp.sum((ratings[:, :, name] > above[None, None, :]).astype(jnp.float32), axis=1)
    return marked / jnp.maximum(number[:, name], 1.0), jnp.sqrt(number[:, name])


def make(config: Config, *, intensity: Intensity, readers: int, mesh: Mesh) -> Task:
    """The task of `configs/classify.py`.

    Args:
      config: the whole configuration.
      intensity: of the data set, which `lungjax.data.nodules.Patches` has seen to be HU.
      readers: unused; a batch tells who rated.
      mesh: unused; every patch's loss is its own.

    Returns:
      The task. It predicts what `make_nodule_classifier` does.
    """
    del intensity, readers, mesh
    model = network(config)
    classifier = make_nodule_classifier(config)
    side_px = config.patch.side_px
    view = jax.vmap(
        functools.partial(augment.nodule, side_px=side_px, pixel_mm=config.patch.pixel_mm, **config.augment)
    )

    def init(rng: jax.Array, batch: Any) -> tuple[Any, Any]:
        del batch
        variables = model.init(rng, jnp.zeros((2, side_px, side_px, 1), jnp.float32), train=False)
        return variables["params"], {k: v for k, v in variables.items() if k != "params"}

    def loss_fn(params: Any, model_state: Any, batch: Any, rng: jax.Array) -> tuple[jax.Array, tuple[Metrics, Any]]:
        view_rng, drop_rng = jax.random.split(rng)
        keys = jax.random.split(view_rng, batch["image"].shape[0])
        hu, marked = view(keys, batch["image"].astype(jnp.float32), share_marked(batch["readers"]), batch["spacing_mm"])
        x = window(hu, tuple(config.patch.window_hu))[..., None]
        variables = {"params": params, **model_state}
        (logits, pixels, _), model_state = model.apply(
            variables, x, train=True, rngs={"dropout": drop_rng}, mutable=list(model_state)
        )
        loss, figures = nodule_loss(config, logits, pixels, marked, batch)
        return loss, (figures, model_state)

    def eval_fn(params: Any, model_state: Any, batch: Any, rng: jax.Array) -> Metrics:
        del rng
        return binned_sums(predict(params, model_state, batch)["logit"], batch)

    def predict(params: Any, model_state: Any, batch: Any) -> dict[str, jax.Array]:
        return classifier(params, model_state, batch["image"], batch["spacing_mm"])

    return Task(
        name="classify",
        init=init,
        loss_fn=loss_fn,
        eval_fn=eval_fn,
        summarize=loss_and_auc,
        predict=predict,
        best="auc",
        calibrated="logit",
    )


def nodule_loss(
    config: Config, logits: jax.Array, pixels: jax.Array, marked: jax.Array, batch: Any
) -> tuple[jax.Array, Metrics]:
    """What the outlines, the labels and the ratings of nodules cost; what is not known costs nothing.

    Args:
      config: its `outline_weight` and `ratings_weight`.
      logits: (n, 1 + STEPS) of the nodules.
      pixels, marked: (n, side, side) logits, and the share of readers who marked each pixel.
      batch: with `readers`, `label`, `ratings` and `weight` of the n nodules.
    """
    known = jnp.any(batch["readers"] > 0, axis=(1, 2)).astype(jnp.float32) * batch["weight"]
    outline = _OUTLINE_WEIGHT * losses.binary_cross_entropy(logits=pixels, targets=marked, weights=known)
    outline = outline + losses.dice_loss(logits=pixels, targets=marked, weights=known)
    label, weight = labels(batch["label"])
    targets, trust = ordinal_targets(batch["ratings"])
    weight = weight * trust[:, -1] * batch["weight"]
    malignancy = losses.weighted_mean(losses.sigmoid_cross_entropy(logits[:, 0], label), weight)
    trust = trust * batch["weight"][:, None]
    each = losses.sigmoid_cross_entropy(logits[:, 1:], targets) * trust
    each = jnp.sum(each, axis=0) / jnp.maximum(jnp.sum(trust, axis=0), 1.0)
    own = HIGHEST[-1] - 1  # Malignancy's steps, the last ones, count as much as twice all others.
    ratings = jnp.mean(each[-own:]) + 0.5 * jnp.mean(each[:-own])
    loss = config.outline_weight * outline + malignancy + config.ratings_weight * ratings
    return loss, {"outline": outline, "cross_entropy": malignancy, "ratings": ratings}


def binned_sums(logit: jax.Array, batch: Any) -> Metrics:
    """Of a validation batch, for `loss_and_auc`: the loss, and `benign` and `malignant` (bins,), how many there are in
    bins of probability.
    """
    label, weight = labels(batch["label"])
    weight = weight * batch["weight"]
    place = jnp.clip(jax.nn.sigmoid(logit) * _BINS, 0, _BINS - 1).astype(jnp.int32)
    counts = jnp.zeros((2, _BINS), jnp.float32).at[label.astype(jnp.int32), place].add(weight)
    return {
        "loss": jnp.sum(weight * losses.sigmoid_cross_entropy(logit, label)),
        "benign": counts[0],
        "malignant": counts[1],
    }


def loss_and_auc(sums: dict[str, Any]) -> dict[str, float]:
    """Mean loss and ROC AUC of the added `binned_sums`; 0.5 without both kinds, for nothing can be told apart."""
    benign, malignant = sums["benign"], sums["malignant"]
    number = float(benign.sum() + malignant.sum())
    return {"loss": float(sums["loss"]) / max(number, 1.0), "auc": float(metrics.binned_auc(benign, malignant))}


def labels(label: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Labels (batch,), NaN where a nodule is neither -> without NaN, and weights, 0 for those that are neither."""
    neither = jnp.isnan(label)
    return jnp.where(neither, 0.0, label), 1.0 - neither.astype(jnp.float32)


def share_marked(readers: jax.Array) -> jax.Array:
    """uint8 bits (batch, height, width) -> float32, of the readers who marked anything the share at a pixel."""
    slots = jax.lax.reduce(readers, jnp.uint8(0), jax.lax.bitwise_or, (1, 2))  # (batch,)
    who = jnp.maximum(jax.lax.population_count(slots).astype(jnp.float32), 1.0)
    return jax.lax.population_count(readers).astype(jnp.float32) / who[:, None, None]
