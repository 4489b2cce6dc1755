"""Whether a model's samples disagree as the readers do: the generalised energy distance of their masks.

    GED^2 = 2 E d(S, Y) - E d(S, S') - E d(Y, Y'),    d = 1 - IoU,

S, S' samples of the model, Y, Y' readers, each drawn with replacement from all there are. Lower is better; 0 where
samples and readers are distributed alike.

Sources: Kohl et al., A probabilistic U-Net for segmentation of ambiguous images (NeurIPS 2018); Székely and Rizzo,
Energy statistics (2013).
"""

from __future__ import annotations

import numpy as np

from lungjax import metrics
from lungjax.evaluation.segmentation import overlap_matrix

SAMPLES = (16, 100)
NAMES = ("one_mask", *map(str, SAMPLES))
CONVENTIONS = (
    "GED^2 of each slice with d = 1 - IoU, d = 0 between two empty masks, against all readers, one who marked nothing "
    "with an empty mask; expectations over all pairs, a mask with itself among them; averaged over the slices that a "
    "reader marked. Lower is better. one_mask: the thresholded prediction as the only sample; 16 and 100: so many "
    "samples of the model, of a deterministic one its only mask. readers: the ceiling, what so many samples drawn "
    "from the four readers themselves expect, mean distance between readers / samples; one_mask is then the mask of "
    "one reader, in the mean over readers."
)


def distances(overlaps: np.ndarray) -> np.ndarray:
    """d = 1 - IoU between each two masks; two empty masks are alike.

    Args:
      overlaps: int64 (..., masks, masks), pixels shared, as `overlap.overlaps` gives them.

    Returns:
      float64, the same shape.
    """
    pixels = np.diagonal(overlaps, axis1=-2, axis2=-1)
    union = pixels[..., :, None] + pixels[..., None, :] - overlaps
    return 1 - metrics.iou(overlaps, union)


def ged2(distances: np.ndarray, samples: slice, readers: slice) -> np.ndarray:
    """GED^2 of some of the masks against others.

    Args:
      distances: (..., masks, masks).
      samples, readers: which masks.

    Returns:
      float64 (...).
    """
    across = distances[..., samples, readers].mean(axis=(-2, -1))
    return 2 * across - _spread(distances, samples) - _spread(distances, readers)


def ceiling(distances: np.ndarray, readers: slice) -> np.ndarray:
    """What one mask, and each of `SAMPLES`, expect whose samples are readers drawn with replacement.

    With D the mean distance between readers, 2 D - (1 - 1/n) D - D = D / n for n samples.

    Args:
      distances: (..., masks, masks).
      readers: which masks.

    Returns:
      float64 (len(NAMES), ...).
    """
    return _spread(distances, readers) / np.reshape((1, *SAMPLES), (-1, *[1] * (distances.ndim - 2)))


def of_samples(samples: np.ndarray, bits: np.ndarray, *, readers: int) -> np.ndarray:
    """GED^2 of each slice with the first 16 and with all 100 samples.

    Args:
      samples: bool (100, slices, rows, columns).
      bits: uint8 (slices, rows, columns), the readers' bits.
      readers: how many looked at each scan.

    Returns:
      float64 (len(SAMPLES), slices).

    Raises:
      ValueError: another number of samples.
    """
    if len(samples) != SAMPLES[-1]:
        raise ValueError(f"{SAMPLES[-1]} samples wanted, got {len(samples)}")
    drawn = np.stack([bits & np.uint8(1 << slot) != 0 for slot in range(readers)])
    found = np.empty((len(SAMPLES), len(bits)))
    for place in range(len(bits)):  # One slice at a time: all would take gigabytes.
        both = np.concatenate([drawn[:, place], samples[:, place]])[:, None]
        apart = distances(overlap_matrix.overlaps(both)[0])
        found[:, place] = [ged2(apart, slice(readers, readers + number), slice(readers)) for number in SAMPLES]
    return found


def _spread(distances: np.ndarray, masks: slice) -> np.ndarray:
    return distances[..., masks, masks].mean(axis=(-2, -1))
