"""Whether a model's samples disagree in the way readers do: the generalised energy distance (GED) of their masks.

    GED^2 = 2 E d(S, Y) - E d(S, S') - E d(Y, Y'),    d = 1 - IoU,

where S and S' are samples of the model and Y and Y' readers, each drawn independently and with replacement. Lower is
better; 0 where samples and readers have the same distribution.

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
    "GED^2 of each slice with d = 1 - IoU, and d = 0 between two empty masks, against all readers; the mask of a "
    "reader who marked nothing is empty. Expectations are over all pairs, including a mask with itself, averaged over "
    "the slices that at least one reader marked. Lower is better. one_mask: the thresholded prediction as the only "
    "sample; 16 and 100: that many samples of the model, or its only mask where it is deterministic. readers: the "
    "best possible, the expected value for that many samples drawn from the four readers themselves, which is the mean "
    "distance between readers / samples; its one_mask is the mask of one reader, averaged over readers."
)


def distances(overlaps: np.ndarray) -> np.ndarray:
    """d = 1 - IoU between every two masks; 0 between two empty masks.

    Args:
      overlaps: int64 (..., masks, masks), shared pixels, from `overlap_matrix.overlaps`.

    Returns:
      float64, the same shape.
    """
    pixels = np.diagonal(overlaps, axis1=-2, axis2=-1)
    union = pixels[..., :, None] + pixels[..., None, :] - overlaps
    return 1 - metrics.iou(overlaps, union)


def ged2(distances: np.ndarray, samples: slice, readers: slice) -> np.ndarray:
    """GED^2 of samples against readers.

    Args:
      distances: (..., masks, masks).
      samples, readers: where these masks stand.

    Returns:
      float64 (...).
    """
    across = distances[..., samples, readers].mean(axis=(-2, -1))
    return 2 * across - _spread(distances, samples) - _spread(distances, readers)


def ceiling(distances: np.ndarray, readers: slice) -> np.ndarray:
    """The expected GED^2 of one mask, and of each number of `SAMPLES`, drawn with replacement from the readers.

    With D the mean distance between readers, it is 2 D - (1 - 1/n) D - D = D / n for n samples.

    Args:
      distances: (..., masks, masks).
      readers: where the readers' masks stand.

    Returns:
      float64 (len(NAMES), ...).
    """
    return _spread(distances, readers) / np.reshape((1, *SAMPLES), (-1, *[1] * (distances.ndim - 2)))


def ged2_of_samples(samples: np.ndarray, bits: np.ndarray, *, readers: int) -> np.ndarray:
    """GED^2 of each slice with the first 16 and with all 100 samples.

    Args:
      samples: bool (100, slices, rows, columns).
      bits: uint8 (slices, rows, columns), the readers' bits.
      readers: the number of readers of each scan.

    Returns:
      float64 (len(SAMPLES), slices).

    Raises:
      ValueError: there are not 100 samples.
    """
    if len(samples) != SAMPLES[-1]:
        raise ValueError(f"expected {SAMPLES[-1]} samples, got {len(samples)}")
    reader_masks = np.stack([bits & np.uint8(1 << slot) != 0 for slot in range(readers)])
    values = np.empty((len(SAMPLES), len(bits)))
    for place in range(len(bits)):  # One slice at a time: all at once would take gigabytes.
        masks = np.concatenate([reader_masks[:, place], samples[:, place]])[:, None]
        between = distances(overlap_matrix.overlaps(masks)[0])
        values[:, place] = [ged2(between, slice(readers, readers + number), slice(readers)) for number in SAMPLES]
    return values


def _spread(distances: np.ndarray, masks: slice) -> np.ndarray:
    return distances[..., masks, masks].mean(axis=(-2, -1))
