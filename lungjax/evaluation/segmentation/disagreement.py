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


def ged2_of_thresholds(
    probability: np.ndarray, thresholds: np.ndarray, bits: np.ndarray, *, readers: int
) -> np.ndarray:
    """GED^2 of each slice with the first 16 and with all 100 samples of a model that are parted by thresholds.

    Args:
      probability: float (slices, rows, columns).
      thresholds: (100,), of the same dtype: a sample is the pixels whose probability is above one of these.
      bits: uint8 (slices, rows, columns), the readers' bits.
      readers: the number of readers of each scan.

    Returns:
      float64 (len(SAMPLES), slices).

    Raises:
      ValueError: there are not 100 thresholds.
    """
    if len(thresholds) != SAMPLES[-1]:
        raise ValueError(f"expected {SAMPLES[-1]} thresholds, got {len(thresholds)}")
    values = np.empty((len(SAMPLES), len(bits)))
    for place in range(len(bits)):
        between = distances(_overlaps(probability[place], thresholds, bits[place], readers=readers))
        values[:, place] = [ged2(between, slice(readers, readers + number), slice(readers)) for number in SAMPLES]
    return values


def _overlaps(probability: np.ndarray, thresholds: np.ndarray, bits: np.ndarray, *, readers: int) -> np.ndarray:
    """The pixels that every two masks of a slice share, the readers' first, then the samples: int64 (masks, masks).

    Of two samples, the one of the higher threshold lies within the other. So it is enough to count the pixels above
    each threshold, all of them and those of each reader.
    """
    rank, ascending = np.argsort(np.argsort(thresholds)), np.sort(thresholds)
    some = (probability > ascending[0]) | (bits != 0)  # No mask has any other pixel.
    marks = bits[some] >> np.arange(readers, dtype=np.uint8)[:, None] & 1  # (readers, pixels)
    below = np.searchsorted(ascending, probability[some])  # The number of thresholds below each pixel's probability.
    counted = np.stack([np.bincount(below, part, len(thresholds) + 1) for part in (None, *marks)])
    above = counted[:, :0:-1].cumsum(axis=1)[:, ::-1].astype(np.int64)  # (all and readers, thresholds), ascending
    overlaps = np.empty((readers + len(thresholds),) * 2, np.int64)
    overlaps[:readers, :readers] = marks.astype(np.int64) @ marks.T
    overlaps[:readers, readers:] = above[1:, rank]
    overlaps[readers:, :readers] = above[1:, rank].T
    overlaps[readers:, readers:] = above[0][np.maximum(rank[:, None], rank)]
    return overlaps


def _spread(distances: np.ndarray, masks: slice) -> np.ndarray:
    return distances[..., masks, masks].mean(axis=(-2, -1))
