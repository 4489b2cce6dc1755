"""Nodule segmentation: a U-Net trained on the readers' masks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lungjax import losses, metrics
from lungjax.ct.scan import READERS, Intensity
from lungjax.data import augment, context
from lungjax.data.intensity import batch_to_hu, window
from lungjax.models.encoder import ResNet
from lungjax.models.unet import UNet
from lungjax.tasks import accumulation
from lungjax.tasks.task import COUNTS, Config, Metrics, Task

TargetMode = Literal["majority", "soft", "random"]

LEVELS = READERS
"""Logits for each pixel where `config.targets` is `levels`: at least 1, 2, 3, 4 readers marked it."""
MAJORITY = metrics.MAJORITY_READERS - 1
"""The level that is scored."""

FLIPS = ((), (-2,), (-1,), (-2, -1))
"""Axes of (batch, ..., height, width) along which `over_flips` flips a slice."""


def network(config: Config) -> UNet:
    """The U-Net of a configuration: images in [0, 1] -> a logit for each pixel, or one for each level."""
    dtype = jnp.dtype(config.compute_dtype)
    return UNet(
        encoder=ResNet(**config.model.encoder, dtype=dtype, remat=config.get("remat", False)),
        widths=tuple(config.model.decoder),
        out_channels=LEVELS if config.targets == "levels" else 1,
        dtype=dtype,
    )


def reader_targets(
    bits: jax.Array, mode: TargetMode, rng: jax.Array | None = None, *, readers: int = READERS
) -> jax.Array:
    """The targets of a segmentation.

    Args:
      bits: uint8 (batch, height, width); bit r is reader r's mask.
      mode: `majority`: 1 where `lungjax.metrics.majority` is; `soft`: the share of the readers who marked the pixel;
        `random`: the mask of a reader drawn at random for each image, empty where that reader marked nothing.
      rng: random key, only for `random`.
      readers: the number of readers of each scan.

    Returns:
      float32 (batch, height, width) in [0, 1].

    Raises:
      ValueError: unknown mode, or `random` without a key.
    """
    if mode not in get_args(TargetMode) or (mode == "random" and rng is None):
        raise ValueError(f"mode is {mode!r}; use 'majority', 'soft', or 'random' with a key.")
    if mode == "random":
        assert rng is not None
        slot = jax.random.randint(rng, (bits.shape[0], 1, 1), 0, readers, jnp.int32).astype(jnp.uint8)
        return (jnp.right_shift(bits, slot) & jnp.uint8(1)).astype(jnp.float32)
    if mode == "majority":
        return metrics.majority(bits, readers=readers).astype(jnp.float32)
    return metrics.share_of_readers(bits, readers=readers)


def over_flips(predict: Callable[[Any], dict[str, jax.Array]], batch: Any) -> dict[str, jax.Array]:
    """Test-time augmentation: the mean of the predictions for the four flips of each slice, each flipped back.

    Args:
      predict: batch -> (batch, height, width) floats by name.
      batch: its `image` is (batch, height, width), or (batch, planes, height, width).
    """
    flipped = [(axes, predict({**batch, "image": jnp.flip(batch["image"], axes)})) for axes in FLIPS]
    names = flipped[0][1]
    return {
        name: jnp.stack([jnp.flip(predicted[name], axes) for axes, predicted in flipped]).mean(axis=0) for name in names
    }


def make(config: Config, *, intensity: Intensity | Literal["mixed"], readers: int, mesh: Mesh) -> Task:
    """The task of `configs/segment.py`.

    Args:
      config: the whole configuration.
      intensity: the data set's, or "mixed", see `lungjax.data.mixture`.
      readers: the number of readers of each scan of the data set; with one, every target is that reader's mask.
      mesh: the devices over which the batch is split.

    Returns:
      The task. It predicts, all (batch, height, width) float32: `image`, the slice in [0, 1] as the network sees it;
      `logit` of the majority of the readers marking a pixel; `share`, the expected share of readers who mark it.

    Raises:
      ValueError: the configuration has an unknown value.
    """
    modes = (*get_args(TargetMode), "levels")
    if config.targets not in modes:
        raise ValueError(f"config.targets is {config.targets!r}; use one of {', '.join(modes)}.")
    pool, pools = config.get("dice_pool", "batch"), get_args(losses.Pool)
    if pool not in pools:
        raise ValueError(f"config.dice_pool is {pool!r}; use one of {', '.join(pools)}.")
    model = network(config)
    apply = accumulation.training(model, config, mesh)
    augmented = augment.make_segment(intensity="hu", **config.augment)
    window_hu = tuple(config.augment.window_hu)

    def init(rng: jax.Array, batch: Any) -> tuple[Any, Any]:
        x = context.channels(jnp.zeros((2, *batch["image"].shape[1:]), jnp.float32))
        variables = model.init(rng, x, train=False)
        return variables["params"], {k: v for k, v in variables.items() if k != "params"}

    def loss_fn(params: Any, model_state: Any, batch: Any, rng: jax.Array) -> tuple[jax.Array, tuple[Metrics, Any]]:
        view_rng, reader_rng = jax.random.split(rng)
        image, bits = augmented(view_rng, batch_to_hu(batch, intensity=intensity), batch["readers"])
        logits, model_state = apply(params, model_state, rng, context.channels(image))
        if config.targets == "levels":
            loss = over_levels(logits, bits, batch["weight"])
        else:
            targets = reader_targets(bits, mode=config.targets, rng=reader_rng, readers=readers)
            loss = objective(logits[..., 0], targets, batch["weight"])
        return loss, ({COUNTS: counts(of_majority(logits), bits, batch["weight"])}, model_state)

    def objective(logits: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
        bce = losses.binary_cross_entropy(logits=logits, targets=targets, weights=weights)
        dice = losses.dice_loss(logits=logits, targets=targets, weights=weights, pool=pool)
        return bce + config.dice_weight * dice

    def over_levels(logits: jax.Array, bits: jax.Array, weights: jax.Array) -> jax.Array:
        """The majority's level counts as much as the other three together."""
        marked = metrics.share_of_readers(bits, readers=readers) * LEVELS
        levels = [
            objective(logits[..., level], (marked > level).astype(jnp.float32), weights) for level in range(LEVELS)
        ]
        others = sum(loss for level, loss in enumerate(levels) if level != MAJORITY)
        return (levels[MAJORITY] + others / (LEVELS - 1)) / 2

    def of_majority(logits: jax.Array) -> jax.Array:
        return logits[..., MAJORITY if config.targets == "levels" else 0]

    def counts(logits: jax.Array, bits: jax.Array, weights: jax.Array) -> jax.Array:
        """Confusion counts of the images that have a weight: int32 (4,)."""
        each = metrics.confusion(logits > 0, metrics.majority(bits, readers=readers))  # (batch, 4)
        return jnp.sum(each * (weights > 0).astype(jnp.int32)[:, None], axis=0)

    def predict(params: Any, model_state: Any, batch: Any) -> dict[str, jax.Array]:
        image = window(batch_to_hu(batch, intensity=intensity), window_hu)
        logits: Any = model.apply({"params": params, **model_state}, context.channels(image), train=False)
        share = jnp.mean(jax.nn.sigmoid(logits), axis=-1)
        return {"image": context.middle(image), "logit": of_majority(logits), "share": share}

    def eval_fn(params: Any, model_state: Any, batch: Any, rng: jax.Array) -> Metrics:
        del rng
        logits = predict(params, model_state, batch)["logit"]
        targets = reader_targets(batch["readers"], "majority", readers=readers)
        slices = batch["weight"].sum()
        return {
            "loss": objective(logits, targets, batch["weight"]) * slices,
            "slices": slices,
            COUNTS: counts(logits, batch["readers"], batch["weight"]),
        }

    def summarize(sums: dict[str, Any]) -> dict[str, float]:
        scores = metrics.scores(sums[COUNTS])
        return {"loss": sums["loss"] / sums["slices"], **{name: float(value) for name, value in scores.items()}}

    return Task(
        name="segment",
        init=init,
        loss_fn=loss_fn,
        eval_fn=eval_fn,
        summarize=summarize,
        predict=predict,
        best="dice",
        calibrated="share",
    )
