import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from lungjax.data import augment, distort
from lungjax.data.intensity import window

SIDE_PX = 64
STILL = {"intensity_jitter": 0.0, "noise": 0.0}
SAME_SCALE = {**STILL, "area": (1.0, 1.0), "aspect": 1.0, "rotation_deg": 0.0, "blur_px": 0.0, "cutout": 0.0}


def blob(rows, columns, centre, sigma_px=4.0):
    return np.exp(-((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / (2 * sigma_px**2))


def landmarks(count=16, shape=(SIDE_PX, SIDE_PX)):
    """Images with one bright blob each, in HU, and two readers' marks: reader 0 more generous than reader 2."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    rng = np.random.default_rng(0)
    centres = np.stack([rng.uniform(0.35, 0.65, count) * side for side in shape], axis=-1)
    blobs = np.stack([blob(rows, columns, centre) for centre in centres])
    bits = (blobs > 0.3) * np.uint8(1) | (blobs > 0.6) * np.uint8(4)
    return jnp.asarray(-1350 + 1500 * blobs, jnp.int16), jnp.asarray(bits, jnp.uint8)


def centroid(weights):
    rows, columns = np.mgrid[: weights.shape[0], : weights.shape[1]]
    return np.array([np.sum(rows * weights), np.sum(columns * weights)]) / np.sum(weights)


@pytest.fixture(scope="module")
def views():
    return jax.jit(augment.make_views(intensity="hu"))


@pytest.fixture(scope="module")
def segmented():
    return jax.jit(augment.make_segment(intensity="hu", **STILL))


def test_the_second_view_is_of_the_partner(views):
    images, _ = landmarks()
    partners = images[::-1]
    key = jax.random.key(0)
    pair, of_images, of_partners = views(key, images, partners), views(key, images), views(key, partners)
    np.testing.assert_allclose(pair[0], of_images[0], atol=1e-5)
    np.testing.assert_allclose(pair[1], of_partners[1], atol=1e-5)
    assert not np.allclose(pair[1], of_images[1], atol=1e-2)


def test_image_and_masks_move_together(segmented):
    images, readers = landmarks()
    moved_by = []
    for seed in range(4):
        moved, bits = (np.asarray(x) for x in segmented(jax.random.key(seed), images, readers))
        for before, image, mask in zip(np.asarray(readers), moved, bits, strict=True):
            for reader in (1, 4):
                np.testing.assert_allclose(centroid(mask & reader), centroid(image), atol=0.6)
            moved_by.append(np.abs(centroid(mask > 0) - centroid(before > 0)).max())
            # The mask is where the image says, pixel for pixel but for the edge between two pixels.
            assert np.mean((mask > 0) != (image > 0.3)) < 0.01
    assert np.mean(np.array(moved_by) > 2) > 0.5


def test_masks_keep_each_reader_and_invent_none(segmented):
    images, readers = landmarks()
    _, bits = segmented(jax.random.key(0), images, readers)
    assert set(np.unique(bits)) == {0, 1, 5}  # Reader 2 marks less than reader 0, and within it.


def test_quarter_turns_and_flips_are_the_eight_symmetries():
    image = jnp.asarray(np.random.default_rng(0).integers(-1300, 100, (SIDE_PX, SIDE_PX)), jnp.int16)
    still = jax.jit(augment.make_segment(intensity="hu", **STILL, rotation_deg=0.0, zoom=0.0, shift=0.0))
    same = window(image.astype(jnp.float32))
    symmetries = [np.rot90(x, k) for x in (same, np.asarray(same).T) for k in range(4)]
    moved, _ = still(jax.random.key(0), jnp.tile(image, (64, 1, 1)), jnp.zeros((64, SIDE_PX, SIDE_PX), jnp.uint8))
    found = [[np.allclose(x, y, atol=1e-3) for y in symmetries] for x in np.asarray(moved)]
    assert (np.sum(found, axis=1) == 1).all()
    assert np.any(found, axis=0).all()


def test_images_that_are_not_square_keep_their_shape(segmented):
    images, readers = landmarks(count=4, shape=(48, SIDE_PX))
    moved, bits = segmented(jax.random.key(1), images, readers)
    assert moved.shape == bits.shape == images.shape
    for image, mask in zip(np.asarray(moved), np.asarray(bits), strict=True):
        np.testing.assert_allclose(centroid(mask > 0), centroid(image), atol=0.6)


def test_same_key_same_result_and_another_key_another(views, segmented):
    images, readers = landmarks()
    for function, arrays in ((views, (images,)), (segmented, (images, readers))):
        first, again, other = (function(jax.random.key(k), *arrays) for k in (3, 3, 4))
        jax.tree.map(np.testing.assert_array_equal, first, again)
        assert not np.array_equal(first[0], other[0])


def test_the_two_views_differ_and_stay_in_range(views):
    images, _ = landmarks()
    a, b = (np.asarray(x) for x in views(jax.random.key(0), images))
    assert a.shape == b.shape == images.shape
    assert a.dtype == b.dtype == np.float32
    assert 0.0 <= min(a.min(), b.min()) <= max(a.max(), b.max()) <= 1.0
    assert np.abs(a - b).max(axis=(1, 2)).min() > 0.05


def test_views_without_strength_are_flips():
    image = jnp.asarray(np.random.default_rng(0).integers(-1300, 100, (SIDE_PX, SIDE_PX)), jnp.int16)
    same = np.asarray(window(image.astype(jnp.float32)))
    still = jax.jit(augment.make_views(intensity="hu", **SAME_SCALE))
    for view in np.concatenate(still(jax.random.key(0), jnp.tile(image, (8, 1, 1)))):
        flips = (same, same[::-1], same[:, ::-1], same[::-1, ::-1])
        assert any(np.allclose(view, flip, atol=1e-5) for flip in flips)


def test_a_crop_lies_inside_the_image():
    # The image is its own row and column, so a view tells where each of its pixels came from.
    rows = jnp.asarray(np.mgrid[:SIDE_PX, :SIDE_PX][0], jnp.int16)
    crop = jax.jit(
        augment.make_views(
            intensity="hu", window_hu=(127.5, 255.0), **{**SAME_SCALE, "area": (0.25, 0.5), "aspect": 4 / 3}
        )
    )
    keys_images = jax.random.key(0), jnp.tile(rows, (32, 1, 1))
    views_rows = 255 * np.concatenate(crop(*keys_images))
    # Mirroring at the border would fold the ramp; inside, it is a straight line of constant slope.
    slope = np.diff(views_rows, axis=1)
    np.testing.assert_allclose(slope, np.broadcast_to(slope.mean((1, 2), keepdims=True), slope.shape), atol=2e-3)
    share = np.abs(slope.mean((1, 2)))
    assert 0.5 * np.sqrt(3 / 4) - 0.01 <= share.min() < 0.55 < 0.65 < share.max() <= np.sqrt(0.5 * 4 / 3) + 0.01


def test_resample_equals_scipy():
    rng = np.random.default_rng(0)
    image = scipy.ndimage.gaussian_filter(rng.normal(size=(40, 56)), 1.0)
    matrix, shift_px = np.array([[0.8, -0.5], [0.4, 0.9]]), np.array([3.2, -5.7])
    middle = (np.array(image.shape) - 1) / 2
    out = np.moveaxis(np.indices(image.shape), 0, -1) - middle  # (rows, columns, 2)
    at = np.moveaxis(out @ matrix.T + shift_px + middle, -1, 0)
    for order in (0, 1):
        expected = scipy.ndimage.map_coordinates(image, at, order=order, mode="mirror")
        got = distort.resample(*(jnp.asarray(x, jnp.float32) for x in (image, matrix, shift_px)), order=order)
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_blur_is_a_gaussian_for_half_of_the_images():
    image = jnp.asarray(np.random.default_rng(0).random((40, 30)), jnp.float32)
    blurs = jax.jit(jax.vmap(lambda key: distort.random_blur(key, image, sigma_px=2.0)))
    sigmas_px = np.linspace(0.05, 2.0, 200)
    candidates = np.stack(
        [scipy.ndimage.gaussian_filter(np.float64(image), s, mode="nearest", radius=6) for s in sigmas_px]
    )
    found_px = []
    for got in np.asarray(blurs(jax.random.split(jax.random.key(0), 100))):
        errors = np.abs(got - candidates).max(axis=(1, 2))
        assert errors.min() < 1e-2  # Some sigma in the range explains it.
        found_px.append(sigmas_px[errors.argmin()])
    blurred = np.array(found_px) > 0.2
    assert 30 <= blurred.sum() <= 65  # 47 +- 5 expected: half, but for those of less than 0.2 px
    assert np.max(found_px) > 1.8


def test_cutout_blanks_one_square_with_the_mean():
    image = jnp.asarray(np.random.default_rng(0).random((40, 60)), jnp.float32)
    for seed in range(8):
        changed = np.asarray(distort.random_cutout(jax.random.key(seed), image, 0.5) != image)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        assert changed.sum() == len(rows) * len(columns)
        assert max(len(rows), len(columns)) <= 0.5 * 40 + 1


def test_noise_has_the_strength_asked_for():
    grey = jnp.full((200, 200), 0.5)
    spreads = np.array([np.std(distort.add_noise(jax.random.key(k), grey, 0.1)) for k in range(40)])
    assert 0.0 <= spreads.min() < 0.02 < 0.08 < spreads.max() <= 0.102


def test_padding_far_below_air_becomes_air(views):
    padded = jnp.full((2, SIDE_PX, SIDE_PX), -3024, jnp.int16)
    still = jax.jit(augment.make_views(intensity="hu", noise=0.0))
    assert np.max(still(jax.random.key(0), padded)) == 0.0
    assert np.isfinite(np.asarray(views(jax.random.key(0), padded))).all()


@pytest.mark.parametrize("devices", [2, 8])
def test_views_do_not_depend_on_the_devices(views, devices):
    images, _ = landmarks()
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,))
    split = jax.device_put(images, NamedSharding(mesh, PartitionSpec("data")))
    one, many = views(jax.random.key(5), images), views(jax.random.key(5), split)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), one, many)
