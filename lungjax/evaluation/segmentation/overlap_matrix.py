"""How the masks of a slice overlap: one matrix of pixel counts, from which every score of overlap is taken.

Matrices of slices add up: the matrix of a nodule in 3-D is the sum over its slices.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from lungjax import metrics
from lungjax.ct.scan import READERS

PREDICTION, MAJORITY, READER = 0, 1, 2
"""Where in `masks` they stand; reader r at `READER + r`, and after the readers, for each, the others' majority."""

Pair = tuple[int, int]
"""Who is scored, and against whom: places in `masks`."""


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Who is scored against whom. With one reader there is the model against that one, and nothing else.

    Attributes:
      model: the prediction against the majority.
      readers: each reader against the majority of the others.
      model_each: the prediction against each reader.
      readers_each: each reader against each other one.
    """

    model: tuple[Pair, ...]
    readers: tuple[Pair, ...]
    model_each: tuple[Pair, ...]
    readers_each: tuple[Pair, ...]

    @property
    def all(self) -> tuple[Pair, ...]:
        return self.model + self.readers + self.model_each + self.readers_each


def pairs_of(readers: int) -> Pairs:
    """The pairs there are with so many readers."""
    several = [READER + slot for slot in range(readers)] if readers > 1 else []
    return Pairs(
        model=((PREDICTION, MAJORITY),),
        readers=tuple((reader, reader + readers) for reader in several),
        model_each=tuple((PREDICTION, reader) for reader in several),
        readers_each=tuple((one, other) for one in several for other in several if one != other),
    )


def masks(prediction: np.ndarray, bits: np.ndarray, *, readers: int = READERS) -> np.ndarray:
    """Every mask that is compared.

    Args:
      prediction: bool (..., rows, columns).
      bits: uint8, the readers' bits, of the same shape; a bit beyond `readers` counts to majorities alone.
      readers: how many looked at each scan.

    Returns:
      bool (masks, ..., rows, columns), in the order that `READER` tells; `2 + 2 * readers` masks, 3 of one reader.

    Raises:
      ValueError: the shapes differ, the prediction is not bool or the bits are not uint8.
    """
    prediction, bits = np.asarray(prediction), np.asarray(bits)
    if prediction.shape != bits.shape or prediction.dtype != bool:
        raise ValueError(
            f"a bool prediction of the bits' shape {bits.shape} wanted, got {prediction.dtype} {prediction.shape}"
        )
    slots = [np.uint8(1 << slot) for slot in range(readers)]
    found = [prediction, metrics.majority(bits, readers=readers), *(bits & slot != 0 for slot in slots)]
    if readers > 1:
        found += [metrics.majority(bits & ~slot, readers=readers - 1) for slot in slots]
    return np.stack(found)


def overlaps(masks: np.ndarray) -> np.ndarray:
    """How many pixels each two masks share; on the diagonal how many each has.

    Args:
      masks: bool (masks, slices, rows, columns), of fewer than 2^24 pixels a slice, up to which float32 counts.

    Returns:
      int64 (slices, masks, masks).
    """
    flat = np.moveaxis(masks, 0, 1).reshape(masks.shape[1], masks.shape[0], -1).astype(np.float32)
    return (flat @ flat.swapaxes(-1, -2)).astype(np.int64)


def counts(overlaps: np.ndarray, pairs: Sequence[Pair], pixels: np.ndarray) -> np.ndarray:
    """Confusion counts of pairs of masks.

    Args:
      overlaps: (slices, masks, masks), of slices or of nodules.
      pairs: whom to score against whom.
      pixels: (slices,) how many there are.

    Returns:
      int64 (pairs, slices, 4): true positive, false positive, false negative, true negative.
    """
    if not pairs:
        return np.zeros((0, len(overlaps), 4), np.int64)
    scored, against = np.array(pairs).T
    both = overlaps[:, scored, against].T
    predicted, there = overlaps[:, scored, scored].T, overlaps[:, against, against].T
    return np.stack([both, predicted - both, there - both, pixels - predicted - there + both], axis=-1)
