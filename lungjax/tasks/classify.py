"""Classification of nodules: malignant or benign as the readers judge it, and the readers' nine ratings."""

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
from lungjax.tasks import accumulation
from lungjax.tasks.task import Config, Metrics, Task

HIGHEST = (5, 4, 6, 5, 5, 5, 5, 5, 5)
"""The highest value of each rating, in the order of `RATING_NAMES`; the lowest is 1."""
STEPS = tuple((name, above) for name, highest in enumerate(HIGHEST) for above in range(1, highest))
"""For each ordinal logit, the index of the rating, and the value that the rating exceeds."""

_OUTLINE_WEIGHT = 10.0
"""The weight of the outline's cross entropy, which is small because most pixels are easy."""
_BINS = 2000
"""The number of bins of probability for the ROC AUC on the validation patients."""


def network(config: Config) -> NoduleNet:
    """The network of a configuration: a logit of malignancy, then one for each of `STEPS`."""
    dtype = jnp.dtype(config.compute_dtype)
    return NoduleNet(
        encoder=ResNet(**config.model.encoder, dtype=dtype, remat=config.get("remat", False)),
        width=config.model.width,
        hidden=config.model.hidden,
        outputs=1 + len(STEPS),
        pixel_mm=config.patch.pixel_mm,
        dropout=config.model.dropout,
        dtype=dtype,
    )


def make_nodule_classifier(config: Config) -> Callable[..., dict[str, jax.Array]]:
    """The network with resampling and windowing: (params, model_state, hu, spacing_mm) -> predictions by name.

    `hu` is (n, height, width) with a nodule in the middle of each patch, `spacing_mm` is (n,), between pixel centres.
    Predicts, in float32, `logit` (n,) of malignancy; `ratings` (n, 9), the expected ratings in the order of
    `lungjax.ct.scan.RATING_NAMES`; and `above` (n, STEPS), the chance that a reader's rating is above each value of
    `STEPS`. Test-time augmentation: logits are means over the eight rotations and flips of a patch.
    """
    model = network(config)
    resize = functools.partial(distort.resize, side_px=config.patch.side_px, pixel_mm=config.patch.pixel_mm)

    def classifier(params: Any, model_state: Any, hu: jax.Array, spacing_mm: jax.Array) -> dict[str, jax.Array]:
        images = window(resize(hu, spacing_mm), tuple(config.patch.window_hu))[..., None]
        variables = {"params": params, **model_state}
        logits = over_turns(lambda x: model.apply(variables, x, train=False)[0], images)  # pyright: ignore[reportArgumentType, reportIndexIssue, reportOptionalSubscript]
        above = jax.nn.sigmoid(logits[:, 1:])
        return {"logit": logits[:, 0], "ratings": expected_ratings(logits[:, 1:]), "above": above}

    return classifier


def over_turns(predict: Callable[[jax.Array], jax.Array], images: jax.Array) -> jax.Array:
    """Test-time augmentation: the mean of the predictions of the eight rotations and flips of each image.

    Args:
      predict: images -> (batch, ...).
      images: (batch, side, side, channels).
    """
    turned = [jnp.rot90(side, turns, axes=(1, 2)) for turns in range(4) for side in (images, images[:, :, ::-1])]
    # One after the other: eight at once would need eight times the memory.
    return jnp.mean(jax.lax.map(predict, jnp.stack(turned)), axis=0)


def expected_ratings(logits: jax.Array) -> jax.Array:
    """Ordinal logits (n, STEPS) -> expected ratings (n, 9): 1 plus the probabilities of exceeding each value."""
    above = jax.nn.sigmoid(logits)
    member = np.array([[name == number for number in range(len(HIGHEST))] for name, _ in STEPS], np.float32)
    return 1.0 + jnp.matmul(above, member, precision=jax.lax.Precision.HIGHEST)


def ordinal_targets(ratings: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The targets of the ordinal logits.

    Args:
      ratings: int32 (batch, readers, 9), 0 where a reader gave none.

    Returns:
      float32 (batch, STEPS): the share of readers whose rating exceeds each value, and its weight, the square root of
      the number of readers who gave the rating.
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
      intensity: unused; `lungjax.data.nodules.Patches` accepts only HU.
      readers: unused; a batch has each reader's ratings.
      mesh: the devices over which the batch is split.

    Returns:
      The task. It predicts what `make_nodule_classifier` predicts.
    """
    del intensity, readers
    model = network(config)
    apply = accumulation.training(model, config, mesh)
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
        (logits, pixels, _), model_state = apply(params, model_state, drop_rng, x)
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
    """The loss of outlines, labels and ratings of nodules; what is unknown does not contribute.

    Args:
      config: its `outline_weight` and `ratings_weight`.
      logits: (n, 1 + STEPS) of the nodules.
      pixels, marked: (n, side, side), logits, and the share of readers who marked each pixel.
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
    own = HIGHEST[-1] - 1  # Malignancy's steps are the last; they count twice as much as all others together.
    ratings = jnp.mean(each[-own:]) + 0.5 * jnp.mean(each[:-own])
    loss = config.outline_weight * outline + malignancy + config.ratings_weight * ratings
    return loss, {"outline": outline, "cross_entropy": malignancy, "ratings": ratings}


def binned_sums(logit: jax.Array, batch: Any) -> Metrics:
    """The sums over a validation batch for `loss_and_auc`: the loss, and the number of `benign` and `malignant` (bins,)
    in bins of probability.
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
    """Mean loss and ROC AUC from sums of `binned_sums`; the AUC is 0.5 where a class is missing."""
    benign, malignant = sums["benign"], sums["malignant"]
    number = float(benign.sum() + malignant.sum())
    return {"loss": float(sums["loss"]) / max(number, 1.0), "auc": float(metrics.binned_auc(benign, malignant))}


def labels(label: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Labels (batch,), NaN for neither malignant nor benign -> labels without NaN, and weights, 0 for NaN."""
    neither = jnp.isnan(label)
    return jnp.where(neither, 0.0, label), 1.0 - neither.astype(jnp.float32)


def share_marked(readers: jax.Array) -> jax.Array:
    """uint8 bits (batch, height, width) -> float32: at each pixel, the share among the readers who marked any pixel."""
    slots = jax.lax.reduce(readers, jnp.uint8(0), jax.lax.bitwise_or, (1, 2))  # (batch,)
    who = jnp.maximum(jax.lax.population_count(slots).astype(jnp.float32), 1.0)
    return jax.lax.population_count(readers).astype(jnp.float32) / who[:, None, None]
