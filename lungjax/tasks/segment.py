"""Nodule segmentation: a U-Net against what the readers drew."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from jax.sharding import Mesh

from lungjax import losses, metrics
from lungjax.data import augment
from lungjax.evaluate import plots, segmentation
from lungjax.models.encoder import ResNet
from lungjax.models.unet import UNet
from lungjax.tasks.task import Config, Metrics, Task


def make(config: Config, *, intensity: augment.Intensity, readers: int, mesh: Mesh) -> Task:
    """The task of `configs/segment.py`.

    Args:
      config: the whole configuration.
      intensity: the data set's, see `lungjax.data.augment.Intensity`.
      readers: how many looked at each scan of the data set; with one, every target is that one's mask.
      mesh: unused; every image's loss is its own.

    Raises:
      ValueError: a value of the configuration is none of its choices.
    """
    del mesh
    if config.targets not in get_args(metrics.TargetMode):
        raise ValueError(f"config.targets is {config.targets!r}; use one of {', '.join(get_args(metrics.TargetMode))}.")
    dtype = jnp.dtype(config.compute_dtype)
    model = UNet(encoder=ResNet(**config.model.encoder, dtype=dtype), widths=tuple(config.model.decoder), dtype=dtype)
    augmented = augment.make_segment(intensity=intensity, **config.augment)
    window_hu = tuple(config.augment.window_hu)

    def init(rng: jax.Array, batch: Any) -> tuple[Any, Any]:
        x = jnp.zeros((2, *batch["image"].shape[1:], 1), jnp.float32)
        variables = model.init(rng, x, train=False)
        return variables["params"], {k: v for k, v in variables.items() if k != "params"}

    def loss_fn(params: Any, model_state: Any, batch: Any, rng: jax.Array) -> tuple[jax.Array, tuple[Metrics, Any]]:
        view_rng, reader_rng = jax.random.split(rng)
        image, bits = augmented(view_rng, batch["image"], batch["readers"])
        targets = metrics.reader_targets(bits, mode=config.targets, rng=reader_rng, slots=readers)
        variables = {"params": params, **model_state}
        logits, model_state = model.apply(variables, image[..., None], train=True, mutable=list(model_state))
        loss = objective(logits[..., 0], targets, batch["weight"])
        return loss, (jax.lax.stop_gradient(figures(logits[..., 0], bits, batch["weight"])), model_state)

    def objective(logits: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
        bce = losses.binary_cross_entropy(logits=logits, targets=targets, weights=weights)
        dice = losses.dice_loss(logits=logits, targets=targets, weights=weights)
        return bce + config.dice_weight * dice

    def majority(bits: jax.Array) -> jax.Array:
        return metrics.reader_targets(bits, mode="majority", slots=readers)

    def counts(logits: jax.Array, bits: jax.Array, weights: jax.Array) -> jax.Array:
        return metrics.confusion(logits=logits, targets=majority(bits) > 0.5, weights=weights).sum(axis=0)  # (4,)

    def figures(logits: jax.Array, bits: jax.Array, weights: jax.Array) -> Metrics:
        return metrics.scores(counts(logits, bits, weights))

    def predict(params: Any, model_state: Any, batch: Any) -> jax.Array:
        """Logits (batch, height, width)."""
        x = augment.intensity_to_unit(batch["image"], intensity=intensity, window_hu=window_hu)
        logits: Any = model.apply({"params": params, **model_state}, x[..., None], train=False)
        return logits[..., 0]

    def eval_fn(params: Any, model_state: Any, batch: Any, rng: jax.Array) -> Metrics:
        del rng
        logits = predict(params, model_state, batch)
        slices = batch["weight"].sum()
        return {
            "loss": objective(logits, majority(batch["readers"]), batch["weight"]) * slices,
            "slices": slices,
            "counts": counts(logits, batch["readers"], batch["weight"]),
        }

    def summarize(sums: dict[str, Any]) -> dict[str, float]:
        scores = segmentation.scores(sums["counts"])
        return {
            "loss": sums["loss"] / sums["slices"],
            **{name: float(v) for name, v in scores.items() if v == v},
        }

    def draw(batch: Any, logits: np.ndarray, titles: list[str], path: Path) -> None:
        images = np.asarray(augment.intensity_to_unit(batch["image"], intensity=intensity, window_hu=window_hu))
        bits, probability = batch["readers"], scipy.special.expit(logits)
        plots.examples(images, bits, probability, titles, path, spacing_mm=batch["spacing_mm"], slots=readers)

    return Task(
        init=init,
        loss_fn=loss_fn,
        eval_fn=eval_fn,
        summarize=summarize,
        predict=predict,
        draw=draw,
        best="dice",
    )
