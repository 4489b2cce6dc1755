"""How the masks of a slice overlap: a matrix of pixel counts, from which every overlap score is computed.

Matrices can be added: the matrix of a nodule in 3-D is the sum over its slices.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from lungjax import metrics
from lungjax.ct.scan import READERS

PREDICTION, MAJORITY, READER = 0, 1, 2
"""Where these stand in `masks`: reader r at `READER + r`; after all readers, for each reader, the others' majority."""

Pair = tuple[int, int]
"""The mask that is scored, and its reference: positions in `masks`."""


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Which masks are scored against which. With one reader, only the model is scored, against that reader.

    Attributes:
      model: the prediction against the majority.
      readers: each reader against the majority of the others.
      model_each: the prediction against each reader.
      readers_each: each reader against every other reader.
    """

    model: tuple[Pair, ...]
    readers: tuple[Pair, ...]
    model_each: tuple[Pair, ...]
    readers_each: tuple[Pair, ...]

    @property
    def all(self) -> tuple[Pair, ...]:
        return self.model + self.readers + self.model_each + self.readers_each


def pairs_of(readers: int) -> Pairs:
    """The pairs for this number of readers."""
    several = [READER + slot for slot in range(readers)] if readers > 1 else []
    return Pairs(
        model=((PREDICTION, MAJORITY),),
        readers=tuple((reader, reader + readers) for reader in several),
        model_each=tuple((PREDICTION, reader) for reader in several),
        readers_each=tuple((reader, other) for reader in several for other in several if reader != other),
    )


def masks(prediction: np.ndarray, bits: np.ndarray, *, readers: int = READERS) -> np.ndarray:
    """Every mask that is compared.

    Args:
      prediction: bool (..., rows, columns).
      bits: uint8, the readers' bits, of the same shape; a bit beyond `readers` counts only towards majorities.
      readers: the number of readers of each scan.

    Returns:
      bool (masks, ..., rows, columns), in the order that `READER` describes: `2 + 2 * readers` masks, or 3 for one
      reader.

    Raises:
      ValueError: the shapes differ, the prediction is not bool or the bits are not uint8.
    """
    prediction, bits = np.asarray(prediction), np.asarray(bits)
    if prediction.shape != bits.shape or prediction.dtype != bool:
        raise ValueError(
            f"expected a bool prediction of the bits' shape {bits.shape}, got {prediction.dtype} {prediction.shape}"
        )
    slots = [np.uint8(1 << slot) for slot in range(readers)]
    stack = [prediction, metrics.majority(bits, readers=readers), *(bits & slot != 0 for slot in slots)]
    if readers > 1:
        stack += [metrics.majority(bits & ~slot, readers=readers - 1) for slot in slots]
    return np.stack(stack)


def overlaps(prediction: np.ndarray, bits: np.ndarray, *, readers: int = READERS) -> np.ndarray:
    """How many pixels every two of `masks` share; on the diagonal, how many each mask has.

    A mask depends on a pixel's prediction and bits alone. So the pixels of each of their combinations are counted, few
    of a slice, and the masks are looked up by combination.

    Args:
      prediction, bits, readers: as for `masks`, of units along the first axis: slices, or nodules.

    Returns:
      int64 (units, masks, masks).
    """
    combinations = np.arange(2 * 256)
    table = masks(combinations % 2 == 1, (combinations // 2).astype(np.uint8), readers=readers).astype(np.float64)
    unit, *pixel = np.nonzero(prediction | (bits != 0))  # No mask has any other pixel.
    combination = bits[unit, *pixel].astype(np.int64) * 2 + prediction[unit, *pixel]
    number = np.bincount(unit * len(combinations) + combination, minlength=len(bits) * len(combinations))
    return (table * number.reshape(len(bits), 1, -1) @ table.T).astype(np.int64)


def counts(overlaps: np.ndarray, pairs: Sequence[Pair], pixels: np.ndarray) -> np.ndarray:
    """Confusion counts of pairs of masks.

    Args:
      overlaps: (slices, masks, masks), of slices or of nodules.
      pairs: which mask to score against which.
      pixels: (slices,), how many pixels each has.

    Returns:
      int64 (pairs, slices, 4): true positive, false positive, false negative, true negative.
    """
    if not pairs:
        return np.zeros((0, len(overlaps), 4), np.int64)
    scored, against = np.array(pairs).T
    both = overlaps[:, scored, against].T
    predicted, marked = overlaps[:, scored, scored].T, overlaps[:, against, against].T
    return np.stack([both, predicted - both, marked - both, pixels - predicted - marked + both], axis=-1)
