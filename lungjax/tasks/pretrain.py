"""SimCLR (Chen et al. 2020): two augmented views of a slice attract each other, other slices repel.

Where the configuration says so, a U-Net's decoder is pretrained, too: two views of a place attract each other, other
places of the slice repel (Chaitanya et al. 2020); and what is hidden of a view is restored (He et al. 2022; of
convolutional networks Tian et al. 2023).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lungjax import losses
from lungjax.ct.scan import Intensity
from lungjax.data import augment, context, distort
from lungjax.data.intensity import to_hu, window
from lungjax.models.encoder import ResNet
from lungjax.models.simclr_net import DenseSimCLR, SimCLR
from lungjax.models.unet import UNet
from lungjax.tasks import accumulation
from lungjax.tasks.task import DETAILS, Config, Metrics, Task

POSITIVES = ("views", "neighbours")
"""A pair is two views of one slice, or views of a slice and of another slice near it."""
_PLACES_ALONG = 8
"""Places of a slice along an axis, of which two views show about a third in common."""
_BLOCK_PX = 8
"""Side of what is hidden: about that of a nodule in a crop of 128 px."""
_HIDDEN = 0.5
"""Share of the blocks that are hidden."""


def network(config: Config) -> SimCLR | DenseSimCLR:
    """The network of a configuration: with a U-Net's decoder where a loss needs one."""
    dtype, remat = jnp.dtype(config.compute_dtype), config.get("remat", False)
    encoder = ResNet(**config.model.encoder, dtype=dtype, remat=remat)
    heads = {"hidden": config.model.projection_hidden, "out": config.model.projection_out}
    if not (config.get("dense_weight", 0.0) or config.get("masked_weight", 0.0)):
        return SimCLR(encoder=encoder, **heads)
    return DenseSimCLR(unet=UNet(encoder=encoder, widths=tuple(config.model.decoder), dtype=dtype), **heads)


def places_of(
    key: jax.Array, maps: tuple[distort.Affine, distort.Affine], shape: tuple[int, ...]
) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
    """Random places of each slice of a shape (..., height, width): where they lie in each view, (batch, places, 2) in
    pixels, and whether both show them, bool (batch, places)."""
    size = (shape[-2], shape[-1])
    keys = jax.random.split(jax.random.fold_in(key, 1), maps[0].shift_px.shape[0])
    of_slice = jax.vmap(lambda key: distort.random_places(key, size, along=_PLACES_ALONG))(keys)
    in_a, in_b = (jax.vmap(lambda of, at: of.inverse(at, size))(of, of_slice) for of in maps)
    last = jnp.array(size, jnp.float32)[None, None, :] - 1
    seen = jnp.all((in_a >= 0) & (in_a <= last) & (in_b >= 0) & (in_b <= last), axis=-1)
    return (in_a, in_b), seen


def hidden_of(key: jax.Array, shape: tuple[int, ...]) -> list[jax.Array]:
    """For each of two views, what of images (batch, ..., height, width) is hidden, bool (batch, height, width)."""
    keys = jax.random.split(jax.random.fold_in(key, 2), (2, shape[0]))
    blocks = jax.vmap(lambda key: distort.random_blocks(key, (shape[-2], shape[-1]), side_px=_BLOCK_PX, share=_HIDDEN))
    return [blocks(of_view) for of_view in keys]


def hide(images: jax.Array, hidden: jax.Array) -> jax.Array:
    """The images with the mean of what is shown in place of what is hidden, in all planes alike."""
    hidden = hidden if images.ndim == 3 else hidden[:, None]
    shown = (~hidden).astype(jnp.float32)
    mean = jnp.sum(images * shown, axis=(-2, -1), keepdims=True) / jnp.sum(shown, axis=(-2, -1), keepdims=True)
    return jnp.where(hidden, mean, images)


def restoration_error(restored: jax.Array, images: jax.Array, hidden: jax.Array) -> jax.Array:
    """The mean squared error of hidden pixels, over that of always saying their mean; arrays (..., height, width)."""
    where = hidden.astype(jnp.float32)
    number = jnp.maximum(jnp.sum(where, axis=(-2, -1), keepdims=True), 1.0)
    mean = jnp.sum(images * where, axis=(-2, -1), keepdims=True) / number
    off, spread = (jnp.sum((images - guess) ** 2 * where) for guess in (restored, mean))
    return off / jnp.maximum(spread, 1e-6)


def make(config: Config, *, intensity: Intensity, readers: int, mesh: Mesh) -> Task:
    """The task of `configs/simclr.py`.

    Args:
      config: the whole configuration.
      intensity: the data set's, see `lungjax.data.intensity.Intensity`.
      readers: unused, because marks are not used.
      mesh: the devices over which the batch is split; negatives come from the global batch.

    `config.contrast_weight`, `config.dense_weight` and `config.masked_weight` are the weights of SimCLR's loss, and of
    those of places and of restoration. Where one of these two is above 0, a U-Net's decoder, `config.model.decoder`, is
    pretrained, too.

    In a training batch with a `partner` (where `config.positives` is `neighbours`), a pair is a view of the slice and
    one of its partner. Validation batches have no partner, so figures of both kinds of positives are comparable.

    Returns:
      The task. It predicts `views`, (batch, 2, height, width) float32: two views of each slice, as the network sees
      them; of a slice with its context the middle plane. Its `features` are those of the slices without augmentation,
      before the projection head.

    Raises:
      ValueError: `config.positives` has an unknown value, or is `neighbours`, which have no places in common, with a
        `config.dense_weight`; or `config.contrast_weight` is not 1 and there is nothing to weigh against.
    """
    if config.positives not in POSITIVES:
        raise ValueError(f"config.positives is {config.positives!r}; use one of {', '.join(POSITIVES)}.")
    del readers
    dense_weight, masked_weight = (config.get(name, 0.0) for name in ("dense_weight", "masked_weight"))
    if dense_weight and config.positives == "neighbours":
        raise ValueError("config.dense_weight is above 0, but neighbours have no places in common; use views.")
    contrast_weight = config.get("contrast_weight", 1.0)
    if contrast_weight != 1 and not (dense_weight or masked_weight):
        raise ValueError("config.contrast_weight weighs nothing; set config.dense_weight or config.masked_weight, too.")
    best = "accuracy" if contrast_weight else "place_accuracy" if dense_weight else "restored"
    model = network(config)
    dense = isinstance(model, DenseSimCLR)
    views_of = augment.make_placed_views(intensity=intensity, **config.augment)

    def init(rng: jax.Array, batch: Any) -> tuple[Any, Any]:
        x = context.channels(jnp.zeros((2, *batch["image"].shape[1:]), jnp.float32))
        variables = model.init(rng, x, *([jnp.zeros((2, 1, 2), jnp.float32)] if dense else []), train=False)
        return variables["params"], {k: v for k, v in variables.items() if k != "params"}

    def together(a: jax.Array, b: jax.Array) -> jax.Array:
        """Of both views (batch, ...) -> (2 batch, ...), those of a slice side by side: each device keeps its slices."""
        return jnp.stack([a, b], axis=1).reshape(-1, *a.shape[1:])

    def apart(z: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(2 batch, ...) -> the outputs of each view."""
        pairs = z.reshape(-1, 2, *z.shape[1:])
        return pairs[:, 0], pairs[:, 1]

    def joined(inputs: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        """Both views as one batch, so that BatchNorm, where chosen, sees both; and the places in them."""
        x, *places = (together(*inputs[first : first + 2]) for first in range(0, len(inputs), 2))
        return (context.channels(x), *places)

    def forward(params: Any, model_state: Any, key: jax.Array, *inputs: jax.Array) -> tuple[Any, Any]:
        del key
        variables = {"params": params, **model_state}
        outputs, model_state = model.apply(variables, *joined(inputs), train=True, mutable=list(model_state))
        return jax.tree.map(apart, outputs), model_state

    embed = accumulation.accumulated(forward, config, mesh)

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

    def inputs_of(batch: Any, rng: jax.Array) -> tuple[tuple[jax.Array, ...], Any]:
        """The inputs of `forward`, and what the losses need beside its outputs."""
        views, maps = views_of(rng, batch["image"], batch.get("partner"))
        if not dense:
            return views, None
        places, seen = places_of(rng, maps, views[0].shape[1:])
        hidden = hidden_of(rng, views[0].shape) if masked_weight else ()
        shown = [hide(view, where) for view, where in zip(views, hidden, strict=True)] if hidden else views
        return (*shown, *places), (views, hidden, seen)

    def objective(outputs: Any, batch: Any, known: Any, *, masked: bool) -> tuple[jax.Array, Metrics]:
        a, b = outputs[0] if dense else outputs
        loss, metrics = contrast(a, b, batch, masked=masked)
        metrics[DETAILS] = {"embeddings": a}
        if not dense:
            return loss, metrics
        _, of_places, restored = outputs
        views, hidden, seen = known
        loss = contrast_weight * loss
        if dense_weight:
            of_places, metrics["place_accuracy"] = losses.ntxent_of_places(
                embeddings_a=of_places[0], embeddings_b=of_places[1], seen=seen, temperature=config.temperature
            )
            loss = loss + dense_weight * of_places
        if masked_weight:
            whole = jnp.stack([context.middle(view) for view in views])
            error = restoration_error(jnp.stack(restored), whole, jnp.stack(hidden))
            metrics["restored"], loss = 1 - error, loss + masked_weight * error
        return loss, metrics

    def loss_fn(params: Any, model_state: Any, batch: Any, rng: jax.Array) -> tuple[jax.Array, tuple[Metrics, Any]]:
        inputs, known = inputs_of(batch, rng)
        outputs, model_state = embed(params, model_state, rng, *inputs)
        loss, metrics = objective(outputs, batch, known, masked=config.same_scan_mm > 0)
        return loss, (jax.lax.stop_gradient(metrics), model_state)

    def eval_fn(params: Any, model_state: Any, batch: Any, rng: jax.Array) -> Metrics:
        inputs, known = inputs_of({"image": batch["image"]}, rng)
        outputs = model.apply({"params": params, **model_state}, *joined(inputs), train=False)
        # Masked, because the last batch is padded with copies of a slice, which would be false negatives.
        loss, metrics = objective(jax.tree.map(apart, outputs), batch, known, masked=True)
        metrics |= detail_fn(metrics.pop(DETAILS))
        share = batch["weight"].mean()
        return {"batches": share, **{name: value * share for name, value in {"loss": loss, **metrics}.items()}}

    def summarize(sums: dict[str, float]) -> dict[str, float]:
        return {name: float(value / sums["batches"]) for name, value in sums.items() if name != "batches"}

    def predict(params: Any, model_state: Any, batch: Any) -> dict[str, jax.Array]:
        del params, model_state
        return {"views": jnp.stack([*map(context.middle, views_of(jax.random.key(0), batch["image"])[0])], axis=1)}

    def features(params: Any, model_state: Any, batch: Any) -> jax.Array:
        images = window(to_hu(batch["image"], intensity=intensity), tuple(config.augment.window_hu))
        x = context.channels(images)
        pooled: Any = model.apply({"params": params, **model_state}, x, train=False, method="pooled")
        return pooled.astype(jnp.float32)

    return Task(
        name="pretrain",
        init=init,
        loss_fn=loss_fn,
        eval_fn=eval_fn,
        summarize=summarize,
        predict=predict,
        best=best,
        features=features,
        detail_fn=detail_fn,
    )
