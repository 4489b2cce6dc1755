"""Whether a predicted probability is the share of readers who marked: reliability curve and ECE.

Source: Guo et al., On calibration of modern neural networks (ICML 2017), with the share of readers, which may be
any of 0, 1/4, ... 1, for the label.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lungjax import metrics
from lungjax.evaluation.segmentation import overlap_matrix

BINS = 20
"""Of equal width; the last one holds 1."""
NAMES = ("ece", "ece_from_0.05")
CONVENTIONS = (
    f"Pixels of all slices in {BINS} bins of their predicted probability, of equal width. ece: the mean over bins, "
    "weighted by their pixels, of |mean probability - mean share of the readers who marked|; most pixels are far from "
    "any nodule and lie in the first bin, so ece_from_0.05 leaves that one out. readers: the mask of one reader as a "
    "probability of 0 or 1, against the share of the other readers who marked, counted over all readers. curve: each "
    "bin's pixels, mean probability and mean share."
)


def sums(probability: np.ndarray, bits: np.ndarray, *, readers: int) -> np.ndarray:
    """What of each slice may be added up.

    Args:
      probability: float (slices, rows, columns) in [0, 1].
      bits: uint8, of the same shape, the readers' bits; a pixel with more marks than readers counts as all of them.
      readers: how many looked at each scan.

    Returns:
      float64 (slices, 3 * BINS): of each bin the number of pixels, then the sums of probability, then of share.

    Raises:
      ValueError: the shapes differ, or a probability lies outside [0, 1].
    """
    if probability.shape != bits.shape:
        raise ValueError(f"probabilities {probability.shape} and bits {bits.shape} must have one shape")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError("probabilities must lie in [0, 1]")
    slices = len(probability)
    likely = probability.reshape(slices, -1).astype(np.float64)
    share = metrics.share_of_readers(bits, readers=readers).reshape(slices, -1)
    bins = np.minimum((likely * BINS).astype(np.int64), BINS - 1) + BINS * np.arange(slices)[:, None]
    added = [np.bincount(bins.ravel(), w, slices * BINS) for w in (None, likely.ravel(), share.ravel())]
    return np.concatenate([one.reshape(slices, BINS) for one in added], axis=1)


def reader_sums(overlaps: np.ndarray, pixels: np.ndarray, *, readers: int) -> np.ndarray:
    """`sums` of each reader's mask against the share of the others, added up over readers.

    Args:
      overlaps: int64 (slices, masks, masks), as `overlap.overlaps` gives them of `overlap.masks`.
      pixels: int64 (slices,).
      readers: how many looked at each scan, at least 2.

    Returns:
      float64 (slices, 3 * BINS).
    """
    own = slice(overlap_matrix.READER, overlap_matrix.READER + readers)
    shared = overlaps[:, own, own].astype(np.float64)  # (slices, readers, readers)
    each = np.diagonal(shared, axis1=1, axis2=2)
    marked, others = each.sum(axis=1), shared.sum(axis=(1, 2)) - each.sum(axis=1)
    found = np.zeros((len(overlaps), 3, BINS))
    found[:, 0, 0], found[:, 0, -1] = readers * pixels - marked, marked
    found[:, 1, -1] = marked
    found[:, 2, -1] = others / (readers - 1)  # Pixels of one reader, by the share of the others who marked them.
    found[:, 2, 0] = marked - found[:, 2, -1]  # In all, each mark is a share of 1/3 to each of the 3 others.
    return found.reshape(len(overlaps), -1)


def figures(sums: np.ndarray) -> np.ndarray:
    """ECE over all bins, and over all but the first: sums (..., 3 * BINS) -> (..., 2), NaN without pixels."""
    pixels, likely, share = np.split(sums, 3, axis=-1)
    gaps = np.abs(likely - share)
    off = np.stack([gaps.sum(axis=-1), gaps[..., 1:].sum(axis=-1)], axis=-1)
    number = np.stack([pixels.sum(axis=-1), pixels[..., 1:].sum(axis=-1)], axis=-1)
    return np.divide(off, number, out=np.full(off.shape, np.nan), where=number > 0)


def curve(sums: np.ndarray) -> list[dict[str, Any]]:
    """Of each bin with pixels, ready for JSON: its ends, its pixels, their mean probability and mean share.

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
