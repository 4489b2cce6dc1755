"""Nodule segmentation: a U-Net against what four readers drew."""

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
from lungjax.data.intensity import Intensity, to_hu, window
from lungjax.evaluate import plots, segmentation
from lungjax.models.encoder import ResNet
from lungjax.models.unet import UNet
from lungjax.tasks.task import Config, Metrics, Task


def network(config: Config) -> UNet:
    """The U-Net of a configuration; takes images in [0, 1], gives logits."""
    dtype = jnp.dtype(config.compute_dtype)
    return UNet(encoder=ResNet(**config.model.encoder, dtype=dtype), widths=tuple(config.model.decoder), dtype=dtype)


def make(config: Config, *, intensity: Intensity, mesh: Mesh) -> Task:
    """The task of `configs/segment.py`.

    Args:
      config: the whole configuration.
      intensity: the data set's, see `lungjax.data.intensity.Intensity`.
      mesh: unused; every image's loss is its own.

    Raises:
      ValueError: a value of the configuration is none of its choices.
    """
    del mesh
    if config.targets not in get_args(metrics.TargetMode):
        raise ValueError(f"config.targets is {config.targets!r}; use one of {', '.join(get_args(metrics.TargetMode))}.")
    model = network(config)
    augmented = augment.make_segment(intensity=intensity, **config.augment)
    window_hu = tuple(config.augment.window_hu)

    def shown(images: jax.Array) -> jax.Array:
        """As the network sees them, float32 in [0, 1]."""
        return window(to_hu(images, intensity=intensity), window_hu)

    def init(rng: jax.Array, batch: Any) -> tuple[Any, Any]:
        x = jnp.zeros((2, *batch["image"].shape[1:], 1), jnp.float32)
        variables = model.init(rng, x, train=False)
        return variables["params"], {k: v for k, v in variables.items() if k != "params"}

    def loss_fn(params: Any, model_state: Any, batch: Any, rng: jax.Array) -> tuple[jax.Array, tuple[Metrics, Any]]:
        view_rng, reader_rng = jax.random.split(rng)
        image, readers = augmented(view_rng, batch["image"], batch["readers"])
        targets = metrics.reader_targets(readers, mode=config.targets, rng=reader_rng)
        variables = {"params": params, **model_state}
        logits, model_state = model.apply(variables, image[..., None], train=True, mutable=list(model_state))
        loss = objective(logits[..., 0], targets, batch["weight"])
        return loss, (jax.lax.stop_gradient(figures(logits[..., 0], readers, batch["weight"])), model_state)

    def objective(logits: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
        bce = losses.binary_cross_entropy(logits=logits, targets=targets, weights=weights)
        dice = losses.dice_loss(logits=logits, targets=targets, weights=weights)
        return bce + config.dice_weight * dice

    def counts(logits: jax.Array, readers: jax.Array, weights: jax.Array) -> jax.Array:
        majority = metrics.reader_targets(readers, mode="majority") > 0.5
        return metrics.confusion(logits=logits, targets=majority, weights=weights).sum(axis=0)  # (4,)

    def figures(logits: jax.Array, readers: jax.Array, weights: jax.Array) -> Metrics:
        return metrics.scores(counts(logits, readers, weights))

    def predict(params: Any, model_state: Any, batch: Any) -> jax.Array:
        """Logits (batch, height, width)."""
        x = shown(batch["image"])
        logits: Any = model.apply({"params": params, **model_state}, x[..., None], train=False)
        return logits[..., 0]

    def eval_fn(params: Any, model_state: Any, batch: Any, rng: jax.Array) -> Metrics:
        del rng
        logits = predict(params, model_state, batch)
        majority = metrics.reader_targets(batch["readers"], mode="majority")
        slices = batch["weight"].sum()
        return {
            "loss": objective(logits, majority, batch["weight"]) * slices,
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
        plots.examples(
            np.asarray(shown(batch["image"])),
            batch["readers"],
            scipy.special.expit(logits),
            titles,
            path,
            spacing_mm=batch["spacing_mm"],
        )

    return Task(
        init=init,
        loss_fn=loss_fn,
        eval_fn=eval_fn,
        summarize=summarize,
        predict=predict,
        draw=draw,
        best="dice",
    )
