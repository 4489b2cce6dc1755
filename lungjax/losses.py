"""Losses, and measures of an embedding: arrays in, scalars out, all in float32."""

from __future__ import annotations

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh, PartitionSpec

Pool = Literal["batch", "image"]
"""What a Dice is of, see `dice_loss`."""
CHUNK = 512
"""Slices. Of batches up to this size NT-Xent's logits are computed at once."""
_NONE = -1e9
"""The logit of what is left out."""


def weighted_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """sum(weights * values) / sum(weights) of (batch,) arrays; 0 if all weights are 0."""
    total = jnp.sum(weights)
    return jnp.sum(weights * values) / jnp.where(total > 0, total, 1.0)


def ntxent(
    *,
    embeddings_a: jax.Array,
    embeddings_b: jax.Array,
    temperature: float,
    scan: jax.Array | None = None,
    z_mm: jax.Array | None = None,
    exclude_within_mm: float = 0.0,
    chunk: int = CHUNK,
) -> tuple[jax.Array, jax.Array]:
    """NT-Xent, the normalised temperature-scaled cross entropy of SimCLR (Chen et al. 2020), over the given batch.

    Each of the 2 * batch views is classified among the 2 * batch - 1 others; the correct class is the other view of its
    slice. Where `scan` is given, views of *different* slices of the same scan with |dz| <= `exclude_within_mm` are not
    negatives of each other, because neighbouring slices are nearly copies.

    Args:
      embeddings_a, embeddings_b: (batch, features), the two views of each slice; normalised here.
      temperature: divides the cosine similarities.
      scan: (batch,) int32; equal numbers are slices of one scan. None excludes nothing.
      z_mm: (batch,) positions of the slices; NaN or None where unknown, which counts as close.
      exclude_within_mm: the distance up to which slices of a scan are not negatives.
      chunk: of larger batches, logits are computed against so many slices at a time, so that memory grows with the
        batch and not with its square.

    Returns:
      (loss, top1), float32 scalars: the mean over the views, and the share of views that are more similar to the other
      view of their slice than to every negative.
    """
    batch = _check_pair(embeddings_a, embeddings_b)
    scan, z_mm = _fill(scan, z_mm, batch)
    total, hits = _ntxent_sums(
        embeddings_a,
        embeddings_b,
        scan,
        z_mm,
        gather=lambda x: x,
        offset=jnp.zeros((), jnp.int32),
        temperature=temperature,
        exclude_within_mm=exclude_within_mm,
        chunk=chunk,
    )
    return total / (2 * batch), hits / (2 * batch)


def ntxent_sharded(
    *,
    embeddings_a: jax.Array,
    embeddings_b: jax.Array,
    temperature: float,
    mesh: Mesh,
    scan: jax.Array | None = None,
    z_mm: jax.Array | None = None,
    exclude_within_mm: float = 0.0,
    chunk: int = CHUNK,
    axis: str = "data",
) -> tuple[jax.Array, jax.Array]:
    """`ntxent` of the same global batch, split over the mesh axis `axis`.

    Each device holds the logits of its own views against all gathered ones, (2 * batch / devices, 2 * batch), or those
    against a chunk.

    Raises:
      ValueError: the batch is not a multiple of the devices.
    """
    batch = _check_pair(embeddings_a, embeddings_b)
    devices = mesh.shape[axis]
    if batch % devices:
        raise ValueError(f"A batch of {batch} cannot be split evenly over {devices} devices; change its size.")
    scan, z_mm = _fill(scan, z_mm, batch)

    def local(a, b, scan, z_mm):
        sums = _ntxent_sums(
            a,
            b,
            scan,
            z_mm,
            gather=functools.partial(lax.all_gather, axis_name=axis, tiled=True),
            offset=lax.axis_index(axis) * a.shape[0],
            temperature=temperature,
            exclude_within_mm=exclude_within_mm,
            chunk=chunk,
        )
        return lax.psum(sums, axis)

    rows, whole = PartitionSpec(axis), PartitionSpec()
    total, hits = jax.shard_map(local, mesh=mesh, in_specs=(rows,) * 4, out_specs=(whole, whole))(
        embeddings_a, embeddings_b, scan, z_mm
    )
    return total / (2 * batch), hits / (2 * batch)


def ntxent_of_places(
    *, embeddings_a: jax.Array, embeddings_b: jax.Array, seen: jax.Array, temperature: float
) -> tuple[jax.Array, jax.Array]:
    """NT-Xent of places within a slice (the local loss of Chaitanya et al. 2020): each of its places in one view is
    classified among all its places in both; the correct class is the same place in the other view.

    Args:
      embeddings_a, embeddings_b: (batch, places, features), of two views of each slice; normalised here.
      seen: bool (batch, places), whether both views show the place; others count nowhere.
      temperature: divides the cosine similarities.

    Returns:
      (loss, top1), float32 scalars: the mean over the slices in which two places or more are seen, of the mean over
      their views of places; and the share of these that are more similar to their place in the other view than to any
      other. 0 where there is no such slice.
    """
    keys = jnp.concatenate([normalize(embeddings_a), normalize(embeddings_b)], axis=1)  # (batch, 2 places, features)
    seen = jnp.tile(seen, (1, 2))
    places = keys.shape[1] // 2
    logits = jnp.einsum("bif,bjf->bij", keys, keys, precision=lax.Precision.HIGHEST) / temperature
    number = jnp.arange(2 * places, dtype=jnp.int32)
    to_positive = jnp.take_along_axis(
        logits, jnp.broadcast_to(jnp.roll(number, places)[None, :, None], (*logits.shape[:2], 1)), axis=2
    )[..., 0]
    itself = number[:, None] == number[None, :]
    counted = seen[:, None, :] & ~itself[None]
    # Finite, because of a slice of which nothing is seen the gradient would be NaN.
    loss = jax.nn.logsumexp(jnp.where(counted, logits, _NONE), axis=2) - to_positive
    other = counted & ~(jnp.roll(number, places)[:, None] == number[None, :])[None]
    hits = to_positive > jnp.max(jnp.where(other, logits, -jnp.inf), axis=2)
    views = jnp.sum(seen.astype(jnp.float32), axis=1)
    weights = (views > 2).astype(jnp.float32)  # One place alone has no negatives.

    def mean(values: jax.Array) -> jax.Array:
        of_slice = jnp.sum(jnp.where(seen, values, 0.0), axis=1) / jnp.maximum(views, 1.0)
        return weighted_mean(of_slice, weights)

    return mean(loss), mean(hits.astype(jnp.float32))


def _ntxent_sums(a, b, scan, z_mm, *, gather, offset, temperature, exclude_within_mm, chunk):
    """Sums of loss and hits over the views of these slices, against all slices that `gather` returns."""
    a, b = normalize(a), normalize(b)  # (rows, features)
    queries = jnp.concatenate([a, b])  # (2 rows, features)
    to_positive = jnp.tile(jnp.sum(a * b, axis=1), 2) / temperature  # (2 rows,)
    index = offset + jnp.arange(a.shape[0], dtype=jnp.int32)
    others = gather(a), gather(b), gather(scan), gather(z_mm)
    batch = others[0].shape[0]

    def add(sums, slices):
        """Adds the negatives among some slices to (2 rows,) each: the largest logit, the sum of the exponentials of all
        logits' distances from it, and the largest logit of a negative."""
        largest, total, nearest = sums
        (key_a, key_b, key_scan, key_z_mm), key_index = slices
        keys = jnp.concatenate([key_a, key_b])  # (2 slices, features)
        logits = jnp.matmul(queries, keys.T, precision=lax.Precision.HIGHEST) / temperature  # (2 rows, 2 slices)
        same = index[:, None] == key_index[None, :]
        apart_mm = jnp.abs(z_mm[:, None] - key_z_mm[None, :])
        close = (scan[:, None] == key_scan[None, :]) & ~(apart_mm > exclude_within_mm)  # NaN counts as close
        negative = ~(same | close) & (key_index >= 0)[None, :]
        logits = jnp.where(jnp.tile(negative, (2, 2)), logits, -jnp.inf)
        here = jnp.max(logits, axis=1)
        new = lax.stop_gradient(jnp.maximum(largest, here))
        total = total * jnp.exp(largest - new) + jnp.sum(jnp.exp(logits - new[:, None]), axis=1)
        return new, total, jnp.maximum(nearest, here)

    largest = lax.stop_gradient(to_positive)
    sums = largest, jnp.exp(to_positive - largest), jnp.full_like(largest, -jnp.inf)
    numbers = jnp.arange(batch, dtype=jnp.int32)
    if batch <= chunk:
        sums = add(sums, (others, numbers))
    else:  # The backward pass computes each chunk's logits again instead of keeping them.
        chunks = -(-batch // chunk)

        def split(x, fill):
            filling = [(0, chunks * chunk - batch)] + [(0, 0)] * (x.ndim - 1)
            return jnp.pad(x, filling, constant_values=fill).reshape(chunks, chunk, *x.shape[1:])

        parts = tuple(split(x, 0) for x in others), split(numbers, -1)
        sums, _ = lax.scan(jax.checkpoint(lambda sums, slices: (add(sums, slices), None)), sums, parts)
    largest, total, nearest = sums
    loss = largest + jnp.log(total) - to_positive
    return jnp.sum(loss), jnp.sum((to_positive > nearest).astype(jnp.float32))


def _check_pair(a: jax.Array, b: jax.Array) -> int:
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"The two views' embeddings must both be (batch, features); they are {a.shape} and {b.shape}.")
    return a.shape[0]


def _fill(scan: jax.Array | None, z_mm: jax.Array | None, batch: int) -> tuple[jax.Array, jax.Array]:
    """Defaults: every slice is a scan of its own, and positions are unknown."""
    scan = jnp.arange(batch, dtype=jnp.int32) if scan is None else scan
    return scan, jnp.full((batch,), jnp.nan, jnp.float32) if z_mm is None else z_mm


def normalize(embeddings: jax.Array) -> jax.Array:
    """(..., features) -> float32 vectors of unit length; a zero vector stays zero, with finite gradients."""
    x = embeddings.astype(jnp.float32)
    return x * lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-12))


def alignment(*, embeddings_a: jax.Array, embeddings_b: jax.Array) -> jax.Array:
    """Mean squared distance of the two views on the unit sphere: 0 is best, 2 is chance (Wang & Isola 2020)."""
    return jnp.mean(jnp.sum((normalize(embeddings_a) - normalize(embeddings_b)) ** 2, axis=-1))


def uniformity(*, embeddings: jax.Array) -> jax.Array:
    """log mean exp(-2 |x - y|^2) over pairs of different rows; lower is better (Wang & Isola 2020).

    For unit vectors in many dimensions, 0 is collapse and about -4 is uniform on the sphere.
    """
    x = normalize(embeddings)  # (n, features)
    n = x.shape[0]
    squared = 2.0 - 2.0 * jnp.matmul(x, x.T, precision=lax.Precision.HIGHEST)
    exponents = jnp.where(jnp.eye(n, dtype=bool), -jnp.inf, -2.0 * squared)
    return jax.nn.logsumexp(exponents) - jnp.log(jnp.float32(n * (n - 1)))


def effective_rank(*, embeddings: jax.Array) -> jax.Array:
    """exp of the entropy of the singular values' distribution (Roy & Vetterli 2007), 1 to min(n, features).

    The embeddings are neither centred nor normalised, and no gradient flows through.
    """
    values = jnp.linalg.svd(lax.stop_gradient(embeddings).astype(jnp.float32), compute_uv=False)
    share = values / jnp.maximum(jnp.sum(values), jnp.finfo(jnp.float32).tiny)
    return jnp.exp(jnp.sum(jax.scipy.special.entr(share)))


def dice_loss(
    *,
    logits: jax.Array,
    targets: jax.Array,
    weights: jax.Array,
    smoothing: float = 1.0,
    pool: Pool = "batch",
) -> jax.Array:
    """One minus Dice of sigmoid(logits) and targets.

    The overlap is sum(p + t - |p - t|). For hard targets it equals 2 sum(p t); unlike that, it is largest at p = t for
    soft targets too (Dice semimetric loss, Wang et al. 2023).

    Args:
      logits: (batch, ...) floats.
      targets: the same shape, in [0, 1].
      weights: (batch,), 0 for an image to leave out.
      smoothing: pixels added to both sides of the fraction.
      pool: `batch` for one Dice of all images' summed pixels; `image` for the weighted mean of the images' Dice.

    Returns:
      float32 scalar in [0, 1].
    """
    axes = tuple(range(1, logits.ndim))
    probabilities, targets = jax.nn.sigmoid(logits.astype(jnp.float32)), targets.astype(jnp.float32)
    both = jnp.sum(probabilities + targets, axis=axes)  # (batch,)
    overlap = both - jnp.sum(jnp.abs(probabilities - targets), axis=axes)
    if pool == "image":
        return weighted_mean(1.0 - (overlap + smoothing) / (both + smoothing), weights)
    return 1.0 - (jnp.sum(weights * overlap) + smoothing) / (jnp.sum(weights * both) + smoothing)


def sigmoid_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross entropy of sigmoid(logits) with targets in [0, 1], in nats, of each element.

    `optax.sigmoid_binary_cross_entropy` is the same function, but values and gradients differ in their last bits, as
    tests/test_losses.py shows, so that the published figures could not be reproduced.
    """
    return jax.nn.softplus(logits) - logits * targets


def binary_cross_entropy(*, logits: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """Cross entropy in nats: the mean over pixels, then the weighted mean over images; targets may be soft.

    Args:
      logits: (batch, ...) floats.
      targets: the same shape, in [0, 1].
      weights: (batch,), 0 for an image to leave out.

    Returns:
      float32 scalar; 0 if all weights are 0.
    """
    logits, targets = logits.astype(jnp.float32), targets.astype(jnp.float32)
    per_pixel = sigmoid_cross_entropy(logits, targets)
    return weighted_mean(jnp.mean(per_pixel, axis=tuple(range(1, logits.ndim))), weights)
