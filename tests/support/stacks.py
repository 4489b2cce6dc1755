"""The figures of a report a second way, for tests: masks stacked by hand, scores in loops."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import scans

from lungjax import metrics
from lungjax.evaluation.segmentation import disagreement, surface

SCORES = metrics.SCORES


@dataclasses.dataclass(frozen=True, eq=False)
class Stack:
    """A slice or nodule: the prediction, and the readers' masks (4, ...), bool."""

    patient: str
    prediction: np.ndarray
    readers: np.ndarray

    @functools.cached_property
    def raters(self) -> dict[str, list[Rated]]:
        """Who is scored against whom."""
        readers = self.readers
        each = [(readers[a], readers[b]) for a in range(4) for b in range(4) if a != b]
        pairs = {
            "model": [(self.prediction, votes(readers))],
            "readers": [(readers[slot], votes(readers, slot)) for slot in range(4)],
            "model each": [(self.prediction, reader) for reader in readers],
            "readers each": each,
        }
        return {
            who: [Rated(mask, against, score(mask, against) | _surface(mask, against)) for mask, against in some]
            for who, some in pairs.items()
        }

    @functools.cached_property
    def distances(self) -> tuple[float, float]:
        """Mean 1 - IoU between prediction and readers, and between two readers."""
        ours = [1 - score(self.prediction, reader)["iou"] for reader in self.readers]
        return float(np.mean(ours)), float(
            np.mean([1 - score(a, b)["iou"] for a in self.readers for b in self.readers])
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Rated:
    mask: np.ndarray
    reference: np.ndarray
    figures: dict[str, float]


def score(prediction: np.ndarray, target: np.ndarray) -> dict[str, float]:
    hit, missed = float((prediction & target).sum()), float((~prediction & target).sum())
    false, clear = float((prediction & ~target).sum()), float((~prediction & ~target).sum())
    if hit + false + missed == 0:
        return dict.fromkeys(SCORES, 1.0)
    return {
        "dice": 2 * hit / (2 * hit + false + missed),
        "iou": hit / (hit + false + missed),
        "precision": hit / (hit + false) if hit + false else 0,
        "recall": hit / (hit + missed) if hit + missed else 0,
        "accuracy": (hit + clear) / (hit + false + missed + clear),
    }


def votes(readers: np.ndarray, without: int | None = None) -> np.ndarray:
    return np.delete(readers, [] if without is None else without, axis=0).sum(axis=0) >= 2


def _surface(mask: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    spacing = scans.SPACING_MM[-mask.ndim :]
    found = surface.compare(surface.border(mask, spacing), surface.border(reference, spacing))
    return dict(zip(surface.NAMES, found, strict=True))


def _mean(values: Iterable[float]) -> float:
    values = [value for value in values if not math.isnan(value)]
    return float(np.mean(values)) if values else math.nan


def _means(stacks: list[Stack], who: str) -> dict[str, float]:
    """Against the majority: over units that the majority marked; the mean over raters comes last."""
    by_rater = defaultdict(list)
    for rater in range(len(stacks[0].raters[who])):
        found: dict[str, list[float]] = {name: [] for name in (*SCORES, *surface.NAMES, "dice_all", "dice_own")}
        for stack in stacks:
            rated = stack.raters[who][rater]
            found["dice_all"].append(rated.figures["dice"])
            if rated.reference.any():
                found["dice_own"].append(rated.figures["dice"])
            if votes(stack.readers).any():
                for name, value in rated.figures.items():
                    found[name].append(value)
        for name, values in found.items():
            by_rater[name].append(_mean(values))
    return {name: float(np.mean(values)) for name, values in by_rater.items()}


def _means_each(stacks: list[Stack], who: str) -> dict[str, float]:
    found = defaultdict(list)
    for rated in (rated for stack in stacks for rated in stack.raters[who]):
        if rated.reference.any():
            for name, value in rated.figures.items():
                found[name].append(value)
            if rated.mask.any():
                found["dice_both"].append(rated.figures["dice"])
    return {name: _mean(values) for name, values in found.items()}


def _pooled(stacks: list[Stack], who: str, *, together: bool, own: bool = False) -> dict[str, float]:
    """Mean over raters; with `own` over the stacks alone whose reference is not empty, NaN where one has none."""
    nothing = np.zeros(0, bool)
    flat = []
    for rater in zip(*(stack.raters[who] for stack in stacks), strict=True):
        scored = [rated for rated in rater if rated.reference.any() or not own]
        mask, reference = ([getattr(rated, side).ravel() for rated in scored] for side in ("mask", "reference"))
        flat.append((np.concatenate([nothing, *mask]), np.concatenate([nothing, *reference])))
    if together:
        flat = [tuple(np.concatenate(side) for side in zip(*flat, strict=True))]
    scores = [score(*rater) if rater[0].size else dict.fromkeys(SCORES, math.nan) for rater in flat]
    return {name: float(np.mean([score[name] for score in scores])) for name in SCORES}


def _ged(stacks: list[Stack]) -> tuple[float, float]:
    """Of the one mask; and the mean distance between two readers."""
    distances = np.array([stack.distances for stack in stacks if stack.readers.any()])
    return float((2 * distances[:, 0] - distances[:, 1]).mean()), float(distances[:, 1].mean())


def slices(some: list[scans.Series]) -> list[Stack]:
    return [Stack(one.patient, one.prediction[n], one.readers[:, n]) for one in some for n in range(scans.SHAPE[0])]


def nodules(some: list[scans.Series]) -> list[Stack]:
    """Series whose nodules lie in halves of their slices, of which every pixel is of the nearest marks."""
    found = []
    for one in some:
        for index in range(2):
            marked, other = (one.marks[side].any(axis=0) for side in (index, 1 - index))
            if not marked.any():
                continue
            parts = np.zeros(scans.SHAPE, bool)
            for n in np.flatnonzero(marked.any(axis=(1, 2))):
                for row, column in np.ndindex(scans.SHAPE[1:]):
                    near = np.hypot(*(np.argwhere(marked[n]) - (row, column)).T).min()
                    parts[n, row, column] = near < np.hypot(*(np.argwhere(other[n]) - (row, column)).T).min(initial=99)
            scored = marked.any(axis=(1, 2))
            prediction, readers = one.prediction & parts, one.marks[index]
            found.append(Stack(one.patient, prediction[scored], readers[:, scored]))
    return found


def figures(slices: list[Stack], nodules: list[Stack]) -> dict[tuple[str, ...], float]:
    found = {}
    for who in ("model", "readers"):
        blocks = {
            ("pooled",): _pooled(slices, who, together=False),
            ("pooled_own",): _pooled(slices, who, together=False, own=True),
            ("per_slice",): _means(slices, who),
            ("per_nodule",): _means(nodules, who),
            ("against_readers", "pooled"): _pooled(slices, f"{who} each", together=True),
            ("against_readers", "per_slice"): _means_each(slices, f"{who} each"),
            ("against_readers", "per_nodule"): _means_each(nodules, f"{who} each"),
        }
        found |= {(who, *path, name): value for path, block in blocks.items() for name, value in block.items()}
    ours, between = _ged(slices)
    for name, number in zip(disagreement.NAMES, (1, 16, 100), strict=True):
        found["model", "ged", name], found["readers", "ged", name] = ours, between / number
    return found
