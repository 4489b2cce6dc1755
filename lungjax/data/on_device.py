"""A training set's pixels in the memory of the devices: batches are cut there, as the loader plans them.

The host sends only which slices a batch has and where their crops lie. The batches are, bit for bit, those that the
loader would have read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lungjax import platforms
from lungjax.data.loader import Batches
from lungjax.errors import InputError

_SHARE = 0.8
"""Of a device's memory, that pixels may take: a step needs some, too."""
_AT_ONCE = 64
"""Slices that a thread decodes at once."""


class Pixels(NamedTuple):
    """The images of n rows, as arrays of the host or of a device.

    Attributes:
      image: (n, rows, columns), as large as the largest image.
      readers: uint8 (n, rows, columns), one bit per reader; None where batches have none.
      size_px: int32 (n, 2), rows and columns of each image.
      lowest: (n,), the lowest value of each image, which fills what a crop has beyond it.
    """

    image: Any
    readers: Any
    size_px: Any
    lowest: Any


class OnDevice:
    """Batches whose pixels lie on the devices.

    Args:
      source: what is trained on.
      rows: (n,) of its rows.
      put: host arrays -> the same arrays on every device.
      devices: of this process.

    Attributes:
      pixels: on the devices.

    Raises:
      InputError: the pixels fit into no device's memory, which is told before any is read; or whole slices have
        several sizes.
    """

    def __init__(self, source: Batches, rows: np.ndarray, *, put: Callable[[Pixels], Pixels], devices: Sequence[Any]):
        self._source = source
        self._index_rows = np.unique(source.index_rows(rows))
        sizes_px = source.sizes_px(self._index_rows)
        largest_px = sizes_px.max(axis=0)
        if not source.crop_px and (sizes_px != largest_px).any():
            several = sorted({(int(height), int(width)) for height, width in sizes_px})
            raise InputError(f"config.data.path: slices have several sizes {several}; set config.data.crop_px.")
        needed = len(sizes_px) * int(largest_px.prod()) * (source.dtype.itemsize + source.marks)
        _check_fits(needed, len(sizes_px), devices)
        self.pixels = put(_read(source, self._index_rows))

    def plan(self, rows: np.ndarray, uniform: np.ndarray) -> dict[str, np.ndarray]:
        """The `lungjax.data.loader.Plan` of `rows`, whose `place` counts the images of `pixels`."""
        plan = self._source.plan(rows, uniform)
        return {**plan, "place": np.searchsorted(self._index_rows, plan["place"]).astype(np.int32)}

    def read(self, plan: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The batch of this process's part of a plan, on the host."""
        own = jax.tree.map(lambda array: array.addressable_data(0), self.pixels)
        return jax.device_get(jax.jit(self.draw)(own, plan))

    def draw(self, pixels: Pixels, plan: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """The batch of a plan; may be traced."""
        batch = dict(plan)
        images, readers = self._images(pixels, batch.pop("place"), batch.get("corner"))
        batch["image"] = self._source.shaped(images)
        if readers is not None:
            batch["readers"] = readers
        if "partner_place" in batch:
            batch["partner"], _ = self._images(
                pixels._replace(readers=None), batch.pop("partner_place"), batch.pop("partner_corner")
            )
        return batch

    def _images(self, pixels: Pixels, place: jax.Array, corner: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
        """Images (*place.shape, height, width), and the readers' bits of each, or of its middle plane."""
        if not self._source.context.slices:
            return self._cut(pixels, place, corner)
        planes = [self._cut(pixels._replace(readers=None), of, corner)[0] for of in place.T]
        _, readers = self._cut(pixels, place[:, self._source.context.slices], corner)
        return jnp.stack(planes, axis=1), readers

    def _cut(self, pixels: Pixels, place: jax.Array, corner: jax.Array | None) -> tuple[jax.Array, jax.Array | None]:
        """Images and readers' bits (*place.shape, height, width), as `lungjax.data.crop.cut` cuts them."""
        side_px = self._source.crop_px
        if not side_px or corner is None:
            return pixels.image[place], None if pixels.readers is None else pixels.readers[place]
        at = corner[:, :, None] + jnp.arange(side_px, dtype=jnp.int32)[None, None, :]  # (b, 2, side)
        inside = (at >= 0) & (at < pixels.size_px[place][:, :, None])
        inside = inside[:, 0, :, None] & inside[:, 1, None, :]  # (b, side, side)
        height, width = pixels.image.shape[1:]
        where = (
            place[:, None, None],
            jnp.clip(at[:, 0, :, None], 0, height - 1),
            jnp.clip(at[:, 1, None, :], 0, width - 1),
        )
        images = jnp.where(inside, pixels.image[where], pixels.lowest[place][:, None, None])
        if pixels.readers is None:
            return images, None
        return images, jnp.where(inside, pixels.readers[where], jnp.zeros((), jnp.uint8))


def _check_fits(needed: int, slices: int, devices: Sequence[Any]) -> None:
    """Raises InputError where `needed` bytes are too many for one of this process's devices."""
    for device in devices:
        memory = (device.memory_stats() or {}).get("bytes_limit")
        if memory is None:  # CPU devices share the computer's.
            host = platforms.memory_bytes()
            memory = None if host is None else host // len(devices)
        if memory is not None and needed > _SHARE * memory:
            raise InputError(
                f"config.data.placement is 'device', but the pixels of the {slices:,} train slices take "
                f"{needed / 2**30:,.1f} GiB, and a device ({device.device_kind}) has {memory / 2**30:,.1f} GiB of "
                f"memory, of which {1 - _SHARE:.0%} must stay free; set config.data.placement='host'."
            )


def _read(source: Batches, index_rows: np.ndarray) -> Pixels:
    """Reads all images, in as many threads as there are cores."""
    sizes_px = source.sizes_px(index_rows).astype(np.int32)
    shape = (len(index_rows), *sizes_px.max(axis=0))
    image, lowest = np.zeros(shape, source.dtype), np.zeros(len(index_rows), source.dtype)
    readers = np.zeros(shape, np.uint8) if source.marks else None

    def fill(start: int) -> None:
        pairs = zip(*source.pixels(index_rows[start : start + _AT_ONCE]), strict=True)
        for place, (pixels, bits) in enumerate(pairs, start):
            part = (place, slice(pixels.shape[0]), slice(pixels.shape[1]))
            image[part], lowest[place] = pixels, pixels.min()
            if readers is not None:
                readers[part] = bits

    with ThreadPoolExecutor(platforms.core_count()) as threads:
        list(threads.map(fill, range(0, len(index_rows), _AT_ONCE)))  # The list raises what a thread raised.
    return Pixels(image, readers, sizes_px, lowest)
