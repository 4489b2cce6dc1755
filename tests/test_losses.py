import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import runs
from jax.sharding import AxisType

from lungjax import losses

TEMPERATURE = 0.3
BATCH, FEATURES = 16, 6


def pair(seed=0):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(BATCH, FEATURES))
    return a, a + 0.7 * rng.normal(size=a.shape)


def same_scan():
    """Four scans; slices 5 mm apart; two without a position."""
    scan = np.repeat(np.arange(4), 4)
    z_mm = np.tile(np.arange(4) * 5.0, 4)
    z_mm[[2, 9]] = np.nan
    return scan, z_mm


def reference(a, b, scan=None, z_mm=None, within_mm=0.0):
    """NT-Xent row by row in float64: loss, top-1, and the analytic gradients of the loss by a and b.

    With u = x / |x|, s = u u' / t and p the softmax of a row over its candidates, the row's gradient by s is
    p - onehot(positive); the gradient by u follows from s, and the one by x by taking out the part along u.
    """
    x = np.concatenate([a, b])
    u = x / np.linalg.norm(x, axis=1, keepdims=True)
    n, batch = len(x), len(a)
    total, hits, by_s = 0.0, 0, np.zeros((n, n))
    for i in range(n):
        positive = (i + batch) % n
        candidates = []
        for j in range(n):
            slice_i, slice_j = i % batch, j % batch
            close = False
            if scan is not None and z_mm is not None and slice_i != slice_j and scan[slice_i] == scan[slice_j]:
                apart = abs(z_mm[slice_i] - z_mm[slice_j])
                close = np.isnan(apart) or apart <= within_mm
            if j != i and not close:
                candidates.append(j)
        s = u[candidates] @ u[i] / TEMPERATURE
        p = np.exp(s - s.max())
        p /= p.sum()
        total -= np.log(p[candidates.index(positive)])
        hits += candidates[int(np.argmax(s))] == positive
        by_s[i, candidates] = p
        by_s[i, positive] -= 1
    by_u = (by_s + by_s.T) @ u / TEMPERATURE / n
    by_x = (by_u - u * np.sum(u * by_u, axis=1, keepdims=True)) / np.linalg.norm(x, axis=1, keepdims=True)
    return total / n, hits / n, by_x[:batch], by_x[batch:]


def float32(*arrays):
    return tuple(jnp.asarray(x, jnp.float32) for x in arrays)


def masks(kind):
    if kind == "all negatives":
        return {}, {}
    scan, z_mm = same_scan()
    ours = {
        "scan": jnp.asarray(scan, jnp.int32),
        "z_mm": jnp.asarray(z_mm, jnp.float32),
        "exclude_within_mm": 7.5,
    }
    return {"scan": scan, "z_mm": z_mm, "within_mm": 7.5}, ours


def check(loss_of, kind):
    a, b = pair()
    theirs, ours = masks(kind)
    loss, top1, by_a, by_b = reference(a, b, **theirs)

    def value(a, b):
        return loss_of(embeddings_a=a, embeddings_b=b, temperature=TEMPERATURE, **ours)

    (got, got_top1), grads = jax.jit(jax.value_and_grad(value, (0, 1), has_aux=True))(*float32(a, b))
    np.testing.assert_allclose(got, loss, rtol=1e-6)
    np.testing.assert_allclose(got_top1, top1, rtol=1e-6)
    np.testing.assert_allclose(grads[0], by_a, atol=2e-7)
    np.testing.assert_allclose(grads[1], by_b, atol=2e-7)


def test_the_reference_gradient_is_the_finite_difference():
    a, b = pair()
    scan, z_mm = same_scan()
    _, _, by_a, by_b = reference(a, b, scan, z_mm, 7.5)
    step = 1e-6 * np.random.default_rng(1).normal(size=(2, *a.shape))
    up, down = (reference(a + s * step[0], b + s * step[1], scan, z_mm, 7.5)[0] for s in (1, -1))
    np.testing.assert_allclose((up - down) / 2, np.sum(by_a * step[0] + by_b * step[1]), rtol=1e-5)


@pytest.mark.parametrize("kind", ["all negatives", "same scan left out"])
@pytest.mark.parametrize("chunk", [1, 5, 8, 16])
def test_ntxent_equals_the_reference(kind, chunk):
    check(functools.partial(losses.ntxent, chunk=chunk), kind)


@pytest.mark.parametrize("kind", ["all negatives", "same scan left out"])
@pytest.mark.parametrize(("devices", "chunk"), [(1, 16), (2, 16), (4, 16), (8, 16), (1, 6), (4, 6)])
def test_ntxent_over_devices_equals_the_reference(kind, devices, chunk):
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))
    check(functools.partial(losses.ntxent_sharded, mesh=mesh, chunk=chunk), kind)


LARGE = """
import resource
import jax, jax.numpy as jnp
from lungjax import losses

def loss(a, b):
    return losses.ntxent(embeddings_a=a, embeddings_b=b, temperature=0.1)[0]

a, b = jax.random.normal(jax.random.key(0), (2, BATCH, 128), jnp.float32)
step = jax.jit(jax.grad(loss, (0, 1)))
print(step.lower(a, b).compile().memory_analysis().temp_size_in_bytes)
if BATCH <= 4096:
    assert all(bool(jnp.isfinite(x).all()) for x in step(a, b))
"""


@pytest.mark.parametrize("batch", [4096, 16384])
def test_a_large_batch_fits_into_a_gibibyte(batch):
    """A dense matrix of the logits of 16,384 slices would take 4 GiB."""
    done = runs.run([sys.executable, "-c", LARGE.replace("BATCH", str(batch))], runs.environment())
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2**30


def test_each_device_holds_only_its_own_rows_of_logits():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

    def value(a, b):
        return losses.ntxent_sharded(embeddings_a=a, embeddings_b=b, temperature=TEMPERATURE, mesh=mesh)[0]

    text = jax.jit(jax.grad(value)).lower(*float32(*pair())).compile().as_text() or ""
    assert f"f32[{2 * BATCH // 8},{2 * BATCH}]" in text
    assert f"f32[{2 * BATCH},{2 * BATCH}]" not in text


@jax.numpy_dtype_promotion("standard")
@jax.numpy_rank_promotion("allow")
def test_ntxent_equals_optax():
    a, b = float32(*pair())
    labels = jnp.tile(jnp.arange(BATCH), 2)

    def ours(a, b):
        return losses.ntxent(embeddings_a=a, embeddings_b=b, temperature=TEMPERATURE)[0]

    def optaxs(a, b):
        return optax.losses.ntxent(jnp.concatenate([a, b]), labels, TEMPERATURE)

    np.testing.assert_allclose(ours(a, b), optaxs(a, b), rtol=1e-5)
    for got, expected in zip(jax.grad(ours, (0, 1))(a, b), jax.grad(optaxs, (0, 1))(a, b), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_slices_without_a_position_are_close_to_all_of_their_scan():
    a, b = pair()
    scan = np.repeat(np.arange(4), 4)
    expected = reference(a, b, scan, np.full(BATCH, np.nan))[0]
    views = dict(zip(("embeddings_a", "embeddings_b"), float32(a, b), strict=True))
    scan = jnp.asarray(scan, jnp.int32)
    for z_mm in (None, jnp.full(BATCH, jnp.nan)):
        loss, _ = losses.ntxent(**views, temperature=TEMPERATURE, scan=scan, z_mm=z_mm)
        np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_a_batch_of_one_scan_without_negatives_costs_nothing():
    a, b = float32(*pair())
    loss, grads = jax.value_and_grad(
        lambda a: losses.ntxent(
            embeddings_a=a, embeddings_b=b, temperature=TEMPERATURE, scan=jnp.zeros(BATCH, jnp.int32)
        )[0]
    )(a)
    np.testing.assert_allclose(loss, 0.0, atol=1e-6)
    np.testing.assert_allclose(grads, 0.0, atol=1e-6)


def test_a_zero_embedding_has_finite_gradients():
    a, b = float32(*pair())
    grads = jax.grad(
        lambda a: losses.ntxent(embeddings_a=a.at[0].set(0.0), embeddings_b=b, temperature=TEMPERATURE)[0]
    )(a)
    assert np.isfinite(grads).all()


def test_collapse_scores_no_hits():
    ones = jnp.ones((BATCH, FEATURES))
    loss, top1 = losses.ntxent(embeddings_a=ones, embeddings_b=ones, temperature=TEMPERATURE)
    np.testing.assert_allclose(loss, np.log(2 * BATCH - 1), rtol=1e-6)
    assert top1 == 0.0


def test_ntxent_names_what_does_not_fit():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    with pytest.raises(ValueError, match=r"they are \(4, 3\) and \(5, 3\)"):
        losses.ntxent(embeddings_a=jnp.ones((4, 3)), embeddings_b=jnp.ones((5, 3)), temperature=1.0)
    with pytest.raises(ValueError, match="A batch of 12 cannot be split evenly over 8 devices"):
        losses.ntxent_sharded(
            embeddings_a=jnp.ones((12, 3)), embeddings_b=jnp.ones((12, 3)), temperature=1.0, mesh=mesh
        )


def test_alignment_and_uniformity_of_known_points():
    east, north = jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 3.0]])
    np.testing.assert_allclose(losses.alignment(embeddings_a=east, embeddings_b=north), 2.0, rtol=1e-6)
    np.testing.assert_allclose(losses.alignment(embeddings_a=east, embeddings_b=5 * east), 0.0, atol=1e-6)
    # Distances 2, 2 and 4 squared, twice each: log of the mean of e^-4, e^-4 and e^-8.
    points = jnp.concatenate([east, north, -east])
    expected = np.log((2 * np.exp(-4) + np.exp(-8)) / 3)
    np.testing.assert_allclose(losses.uniformity(embeddings=points), expected, rtol=1e-5)
    np.testing.assert_allclose(losses.uniformity(embeddings=jnp.ones((5, 3))), 0.0, atol=1e-5)


def test_effective_rank_of_known_spectra():
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.normal(size=(n, 5)))[0] for n in (20, 8))
    for values, expected in (
        ([1, 1, 1, 1, 1], 5.0),
        ([3, 0, 0, 0, 0], 1.0),
        ([2, 1, 1, 0, 0], 2 * np.sqrt(2)),
    ):
        matrix = jnp.asarray(left @ np.diag(values) @ right.T, jnp.float32)
        np.testing.assert_allclose(losses.effective_rank(embeddings=matrix), expected, rtol=1e-4)
    assert np.isfinite(losses.effective_rank(embeddings=jnp.zeros((4, 3))))


def images():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 5, 4))
    return logits, (rng.random(logits.shape) < 0.4).astype(float), np.array([1.0, 0.0, 2.0])


def test_dice_loss_of_hard_targets_is_the_textbook_one():
    logits, targets, weights = images()
    p = 1 / (1 + np.exp(-logits))
    overlap, both = 2 * (p * targets).sum((1, 2)), (p + targets).sum((1, 2))
    pooled = 1 - (weights @ overlap + 1) / (weights @ both + 1)
    per_image = weights @ (1 - (overlap + 1) / (both + 1)) / weights.sum()
    arrays = dict(zip(("logits", "targets", "weights"), float32(logits, targets, weights), strict=True))
    np.testing.assert_allclose(losses.dice_loss(**arrays), pooled, rtol=1e-5)
    np.testing.assert_allclose(losses.dice_loss(**arrays, pool="image"), per_image, rtol=1e-5)


def test_dice_loss_of_soft_targets_is_least_at_the_targets():
    logits = jnp.linspace(-3.0, 3.0, 12).reshape(1, 3, 4)
    targets, weights = jax.nn.sigmoid(logits), jnp.ones(1)
    for shift in (-0.5, 0.0, 0.5):
        loss = losses.dice_loss(logits=logits + shift, targets=targets, weights=weights)
        assert (float(loss) < 1e-6) == (shift == 0.0)


def test_dice_loss_of_nothing_is_zero_and_finite():
    empty = {"logits": jnp.full((2, 3, 3), -200.0), "targets": jnp.zeros((2, 3, 3))}
    for weights in (jnp.ones(2), jnp.zeros(2)):
        value, grad = jax.value_and_grad(lambda x, w=weights: losses.dice_loss(**{**empty, "logits": x}, weights=w))(
            empty["logits"]
        )
        np.testing.assert_allclose(value, 0.0, atol=1e-6)
        assert np.isfinite(grad).all()


def test_binary_cross_entropy_equals_its_definition():
    logits, targets, weights = images()
    soft = 0.1 + 0.8 * targets
    p = 1 / (1 + np.exp(-logits))
    per_image = -(soft * np.log(p) + (1 - soft) * np.log(1 - p)).mean((1, 2))
    arrays = dict(zip(("logits", "targets", "weights"), float32(logits, soft, weights), strict=True))
    np.testing.assert_allclose(losses.binary_cross_entropy(**arrays), weights @ per_image / weights.sum(), rtol=1e-5)
    assert losses.binary_cross_entropy(**{**arrays, "weights": jnp.zeros(3)}) == 0.0


def test_binary_cross_entropy_of_certain_logits_does_not_overflow():
    loss = losses.binary_cross_entropy(
        logits=jnp.full((1, 2, 2), 1000.0), targets=jnp.zeros((1, 2, 2)), weights=jnp.ones(1)
    )
    np.testing.assert_allclose(loss, 1000.0)


def test_optax_rounds_its_cross_entropy_otherwise():
    """Why `sigmoid_cross_entropy` is ours: where this fails, optax's may do, and no figure changes."""
    rng = np.random.default_rng(0)
    logits, targets = float32(rng.normal(0, 5, 1000), rng.random(1000))
    found = [
        jax.jit(jax.value_and_grad(lambda x, loss=loss: jnp.mean(loss(x, targets))))(logits)
        for loss in (losses.sigmoid_cross_entropy, optax.sigmoid_binary_cross_entropy)
    ]
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-8)
    assert np.mean(found[0][1] == found[1][1]) < 0.9


def test_weighted_mean():
    values = jnp.array([1.0, 5.0, 9.0])
    np.testing.assert_allclose(losses.weighted_mean(values, jnp.array([1.0, 0.0, 3.0])), 7.0)
    assert losses.weighted_mean(values, jnp.zeros(3)) == 0.0
