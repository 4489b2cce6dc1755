"""Whether a predicted probability equals the share of readers who marked a pixel: reliability curve and ECE.

Source: Guo et al., On calibration of modern neural networks (ICML 2017), with the share of readers (0, 1/4, ... 1) as
the label.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lungjax import metrics
from lungjax.evaluation.segmentation import overlap_matrix

BINS = 20
"""The number of bins, all of equal width; the last one includes 1."""
NAMES = ("ece", "ece_from_0.05")
CONVENTIONS = (
    f"Pixels of all slices in {BINS} bins of equal width of their predicted probability. ece: the mean over bins, "
    "weighted by their pixels, of |mean probability - mean share of the readers who marked|; most pixels are far from "
    "any nodule and lie in the first bin, so ece_from_0.05 leaves that bin out. readers: the mask of one reader as a "
    "probability of 0 or 1, against the share of the other readers who marked, counted over all readers. curve: each "
    "bin's pixels, mean probability and mean share."
)


def bin_sums(probability: np.ndarray, bits: np.ndarray, *, readers: int) -> np.ndarray:
    """For each slice, the sums in bins of probability from which curve and ECE are computed; they can be added.

    Args:
      probability: float (slices, rows, columns) in [0, 1].
      bits: uint8, of the same shape, the readers' bits; a pixel with more marks than readers counts as marked by all.
      readers: the number of readers of each scan.

    Returns:
      float64 (slices, 3 * BINS): each bin's number of pixels, then its sums of probability, then of share.

    Raises:
      ValueError: the shapes differ, or a probability lies outside [0, 1].
    """
    if probability.shape != bits.shape:
        raise ValueError(f"probabilities {probability.shape} and bits {bits.shape} must have the same shape")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("probabilities must lie in [0, 1]")
    slices = len(probability)
    likely = probability.reshape(slices, -1).astype(np.float64)
    share = metrics.share_of_readers(bits, readers=readers).reshape(slices, -1)
    bins = np.minimum((likely * BINS).astype(np.int64), BINS - 1) + BINS * np.arange(slices)[:, None]
    columns = [np.bincount(bins.ravel(), w, slices * BINS) for w in (None, likely.ravel(), share.ravel())]
    return np.concatenate([column.reshape(slices, BINS) for column in columns], axis=1)


def reader_sums(overlaps: np.ndarray, pixels: np.ndarray, *, readers: int) -> np.ndarray:
    """`bin_sums` of each reader's mask against the share of the others, added up over readers.

    Args:
      overlaps: int64 (slices, masks, masks), from `overlap_matrix.overlaps` of `overlap_matrix.masks`.
      pixels: int64 (slices,).
      readers: the number of readers of each scan, at least 2.

    Returns:
      float64 (slices, 3 * BINS).
    """
    own = slice(overlap_matrix.READER, overlap_matrix.READER + readers)
    shared = overlaps[:, own, own].astype(np.float64)  # (slices, readers, readers)
    each = np.diagonal(shared, axis1=1, axis2=2)
    marked, others = each.sum(axis=1), shared.sum(axis=(1, 2)) - each.sum(axis=1)
    sums = np.zeros((len(overlaps), 3, BINS))
    sums[:, 0, 0], sums[:, 0, -1] = readers * pixels - marked, marked
    sums[:, 1, -1] = marked
    sums[:, 2, -1] = others / (readers - 1)  # Pixels that one reader marked, by the share of the others who did.
    sums[:, 2, 0] = marked - sums[:, 2, -1]  # A mark adds a share of 1 / (readers - 1) for each other reader.
    return sums.reshape(len(overlaps), -1)


def ece_figures(sums: np.ndarray) -> np.ndarray:
    """ECE over all bins, and over all but the first: sums (..., 3 * BINS) -> (..., 2), NaN without pixels."""
    pixels, likely, share = np.split(sums, 3, axis=-1)
    gaps = np.abs(likely - share)
    errors = np.stack([gaps.sum(axis=-1), gaps[..., 1:].sum(axis=-1)], axis=-1)
    number = np.stack([pixels.sum(axis=-1), pixels[..., 1:].sum(axis=-1)], axis=-1)
    return np.divide(errors, number, out=np.full(errors.shape, np.nan), where=number > 0)


def reliability_curve(sums: np.ndarray) -> list[dict[str, Any]]:
    """For each bin with pixels, ready for JSON: its limits, its pixels, their mean probability and mean share.

    Args:
      sums: (slices, 3 * BINS).
    """
    bins = enumerate(zip(*np.split(sums.sum(axis=0), 3), strict=True))
    return [
        {
            "low": place / BINS,
            "high": (place + 1) / BINS,
            "pixels": int(pixels),
            "probability": float(likely / pixels),
            "share": float(share / pixels),
        }
        for place, (pixels, likely, share) in bins
        if pixels
    ]
