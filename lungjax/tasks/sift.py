"""False-positive reduction: is a candidate of the detector a nodule?"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lungjax import losses
from lungjax.ct.scan import Intensity
from lungjax.data import augment, distort
from lungjax.data.intensity import window
from lungjax.models.candidate_net import CandidateNet
from lungjax.models.encoder import ResNet
from lungjax.tasks import accumulation
from lungjax.tasks.classify import binned_sums, loss_and_auc, over_turns
from lungjax.tasks.task import Config, Metrics, Task

PLANES = 3
"""Of a stack; see `lungjax.prediction.patches.STACK_MM`."""


def network(config: Config) -> CandidateNet:
    """The network of a configuration."""
    dtype = jnp.dtype(config.compute_dtype)
    return CandidateNet(
        encoder=ResNet(**config.model.encoder, dtype=dtype, remat=config.get("remat", False)),
        hidden=config.model.hidden,
        dropout=config.model.dropout,
        dtype=dtype,
    )


def make_candidate_classifier(config: Config) -> Callable[..., dict[str, jax.Array]]:
    """The network on stacks as they are: (params, model_state, hu, spacing_mm) -> predictions by name.

    `hu` is (n, 3, height, width) with a candidate in the middle, `spacing_mm` (n,) between pixel centres. Predicts
    `logit` (n,) float32, that it is a nodule. Test-time augmentation: a mean over the eight turns and flips of a stack.
    """
    model = network(config)
    resize = functools.partial(distort.resize, side_px=config.patch.side_px, pixel_mm=config.patch.pixel_mm)

    def classifier(params: Any, model_state: Any, hu: jax.Array, spacing_mm: jax.Array) -> dict[str, jax.Array]:
        planes = resize(hu.reshape(-1, *hu.shape[2:]), jnp.repeat(spacing_mm, PLANES))
        stacks = jnp.moveaxis(planes.reshape(-1, PLANES, *planes.shape[1:]), 1, -1)
        images = window(stacks, tuple(config.patch.window_hu))
        variables = {"params": params, **model_state}
        return {"logit": over_turns(lambda x: model.apply(variables, x, train=False), images)}  # pyright: ignore[reportArgumentType]

    return classifier


def make(config: Config, *, intensity: Intensity, readers: int, mesh: Mesh) -> Task:
    """The task of `configs/sift.py`.

    Args:
      config: the whole configuration.
      intensity: unused; `lungjax mine` writes HU.
      readers: unused; a batch has the label.
      mesh: the devices over which the batch is split.

    Returns:
      The task. It predicts what `make_candidate_classifier` does.
    """
    del intensity, readers
    model = network(config)
    apply = accumulation.training(model, config, mesh)
    classifier = make_candidate_classifier(config)
    side_px = config.patch.side_px
    view = jax.vmap(functools.partial(augment.stack, side_px=side_px, pixel_mm=config.patch.pixel_mm, **config.augment))

    def init(rng: jax.Array, batch: Any) -> tuple[Any, Any]:
        del batch
        variables = model.init(rng, jnp.zeros((2, side_px, side_px, PLANES), jnp.float32), train=False)
        return variables["params"], {k: v for k, v in variables.items() if k != "params"}

    def loss_fn(params: Any, model_state: Any, batch: Any, rng: jax.Array) -> tuple[jax.Array, tuple[Metrics, Any]]:
        view_rng, drop_rng = jax.random.split(rng)
        keys = jax.random.split(view_rng, batch["image"].shape[0])
        hu = view(keys, batch["image"].astype(jnp.float32), batch["spacing_mm"])
        x = window(hu, tuple(config.patch.window_hu))
        logit, model_state = apply(params, model_state, drop_rng, x)
        cross_entropy = losses.sigmoid_cross_entropy(logit, batch["label"])
        loss = losses.weighted_mean(cross_entropy, batch["weight"])
        return loss, ({"cross_entropy": loss}, model_state)

    def predict(params: Any, model_state: Any, batch: Any) -> dict[str, jax.Array]:
        return classifier(params, model_state, batch["image"], batch["spacing_mm"])

    def eval_fn(params: Any, model_state: Any, batch: Any, rng: jax.Array) -> Metrics:
        del rng
        return binned_sums(predict(params, model_state, batch)["logit"], batch)

    return Task(
        name="sift",
        init=init,
        loss_fn=loss_fn,
        eval_fn=eval_fn,
        summarize=loss_and_auc,
        predict=predict,
        best="auc",
        calibrated="logit",
    )
