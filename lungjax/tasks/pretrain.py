"""SimCLR (Chen et al. 2020): two augmented views of a slice attract each other, other slices repel."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lungjax import losses
from lungjax.ct.scan import Intensity
from lungjax.data import augment
from lungjax.data.intensity import to_hu, window
from lungjax.models.encoder import ResNet
from lungjax.models.heads import Projection
from lungjax.tasks import accumulation
from lungjax.tasks.task import DETAILS, Config, Metrics, Task

POSITIVES = ("views", "neighbours")
"""A pair is two views of one slice, or views of a slice and of another slice near it."""


class SimCLR(nn.Module):
    """Encoder, global average pooling, projection head.

    Attributes:
      encoder: of slices; its parameters are under `encoder`, where a U-Net expects them.
      hidden, out: widths of the projection head.
    """

    encoder: ResNet
    hidden: int
    out: int

    def setup(self) -> None:
        self.projection = Projection(hidden=self.hidden, out=self.out, dtype=self.encoder.dtype)

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(batch, height, width, 1) in [0, 1] -> (batch, out) float32."""
        return self.projection(self.pooled(x, train=train))

    def pooled(self, x: jax.Array, *, train: bool) -> jax.Array:
        """(batch, height, width, 1) in [0, 1] -> (batch, channels): the encoder's last map, averaged."""
        return self.encoder(x, train=train)[-1].mean(axis=(1, 2))


def make(config: Config, *, intensity: Intensity, readers: int, mesh: Mesh) -> Task:
    """The task of `configs/simclr.py`.

    Args:
      config: the whole configuration.
      intensity: the data set's, see `lungjax.data.intensity.Intensity`.
      readers: unused, because marks are not used.
      mesh: the devices over which the batch is split; negatives come from the global batch.

    In a training batch with a `partner` (where `config.positives` is `neighbours`), a pair is a view of the slice and
    one of its partner. Validation batches have no partner, so figures of both kinds of positives are comparable.

    Returns:
      The task. It predicts `views`, (batch, 2, height, width) float32: two views of each slice, as the network sees
      them. Its `features` are those of the slices without augmentation, before the projection head.

    Raises:
      ValueError: `config.positives` has an unknown value.
    """
    if config.positives not in POSITIVES:
        raise ValueError(f"config.positives is {config.positives!r}; use one of {', '.join(POSITIVES)}.")
    del readers
    encoder = ResNet(**config.model.encoder, dtype=jnp.dtype(config.compute_dtype), remat=config.get("remat", False))
    model = SimCLR(encoder=encoder, hidden=config.model.projection_hidden, out=config.model.projection_out)
    views_of = augment.make_views(intensity=intensity, **config.augment)

    def init(rng: jax.Array, batch: Any) -> tuple[Any, Any]:
        x = jnp.zeros((2, *batch["image"].shape[1:], 1), jnp.float32)
        variables = model.init(rng, x, train=False)
        return variables["params"], {k: v for k, v in variables.items() if k != "params"}

    def together(a: jax.Array, b: jax.Array) -> jax.Array:
        """Both views -> (2 batch, height, width, 1), those of a slice side by side: each device keeps its slices."""
        return jnp.stack([a, b], axis=1).reshape(-1, *a.shape[1:], 1)

    def apart(z: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(2 batch, out) -> the embeddings of each view."""
        pairs = z.reshape(-1, 2, z.shape[-1])
        return pairs[:, 0], pairs[:, 1]

    def network(params: Any, model_state: Any, key: jax.Array, *views: jax.Array) -> tuple[Any, Any]:
        """Both views go through the model as one batch, so that BatchNorm, where chosen, sees both."""
        del key
        x = together(*views)
        z, model_state = model.apply({"params": params, **model_state}, x, train=True, mutable=list(model_state))
        return apart(z), model_state

    embed = accumulation.accumulated(network, config, mesh)

    def contrast(a: jax.Array, b: jax.Array, batch: Any, *, masked: bool) -> tuple[jax.Array, Metrics]:
        loss, top1 = losses.ntxent_sharded(
            embeddings_a=a,
            embeddings_b=b,
            temperature=config.temperature,
            scan=batch["scan"] if masked else None,
            z_mm=batch["z_mm"] if masked else None,
            exclude_within_mm=config.same_scan_mm,
            mesh=mesh,
            axis=mesh.axis_names[0],
        )
        return loss, {
            "accuracy": top1,
            "alignment": losses.alignment(embeddings_a=a, embeddings_b=b),
            "uniformity": losses.uniformity(embeddings=a),
        }

    def detail_fn(details: Metrics) -> Metrics:
        """Takes a singular value decomposition."""
        return {"effective_rank": losses.effective_rank(embeddings=details["embeddings"])}

    def loss_fn(params: Any, model_state: Any, batch: Any, rng: jax.Array) -> tuple[jax.Array, tuple[Metrics, Any]]:
        views = views_of(rng, batch["image"], batch.get("partner"))
        (a, b), model_state = embed(params, model_state, rng, *views)
        loss, metrics = contrast(a, b, batch, masked=config.same_scan_mm > 0)
        return loss, (jax.lax.stop_gradient({**metrics, DETAILS: {"embeddings": a}}), model_state)

    def eval_fn(params: Any, model_state: Any, batch: Any, rng: jax.Array) -> Metrics:
        z = model.apply({"params": params, **model_state}, together(*views_of(rng, batch["image"])), train=False)
        a, b = apart(jnp.asarray(z))
        # Masked, because the last batch is padded with copies of a slice, which would be false negatives.
        loss, metrics = contrast(a, b, batch, masked=True)
        metrics |= detail_fn({"embeddings": a})
        share = batch["weight"].mean()
        return {"batches": share, **{name: value * share for name, value in {"loss": loss, **metrics}.items()}}

    def summarize(sums: dict[str, float]) -> dict[str, float]:
        return {name: float(value / sums["batches"]) for name, value in sums.items() if name != "batches"}

    def predict(params: Any, model_state: Any, batch: Any) -> dict[str, jax.Array]:
        del params, model_state
        return {"views": jnp.stack(views_of(jax.random.key(0), batch["image"]), axis=1)}

    def features(params: Any, model_state: Any, batch: Any) -> jax.Array:
        images = window(to_hu(batch["image"], intensity=intensity), tuple(config.augment.window_hu))
        pooled: Any = model.apply({"params": params, **model_state}, images[..., None], train=False, method="pooled")
        return pooled.astype(jnp.float32)

    return Task(
        name="pretrain",
        init=init,
        loss_fn=loss_fn,
        eval_fn=eval_fn,
        summarize=summarize,
        predict=predict,
        best="accuracy",
        features=features,
        detail_fn=detail_fn,
    )
