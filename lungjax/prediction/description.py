"""What is reported of each candidate: where it lies, how large it is, what the nodule classifier says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from lungjax.ct.lungs import Lungs
from lungjax.ct.scan import RATING_NAMES, Scan
from lungjax.prediction import lung_rads, measure, nodule_type, rating_distribution
from lungjax.prediction.candidates import Candidate
from lungjax.prediction.location import Location, LungMap
from lungjax.prediction.lung_rads import Assessment
from lungjax.prediction.nodule_classifier import NodulePrediction
from lungjax.prediction.nodule_type import NoduleType
from lungjax.prediction.outputs import report_json
from lungjax.prediction.predicted import PredictedNodule, PredictedRating
from lungjax.tasks.classify import HIGHEST

_SMOOTH = {"margin": (3.5, 5.0), "lobulation": (1.0, 2.5), "spiculation": (1.0, 2.5), "sphericity": (1.5, 4.5)}
"""Expected ratings between which a nodule counts as smooth and as oval, lentiform or triangular: its margin is sharp or
nearly so, it has no or nearly no lobulation and spiculation, and it is neither linear nor round."""


def describe(
    scan: Scan, lung: Lungs | None, candidates: Sequence[Candidate], classified: NodulePrediction | None
) -> list[PredictedNodule]:
    """Every candidate as it is reported, numbered from 1.

    Args:
      scan: in which they lie.
      lung: the scan's lungs; None or empty leaves their places there unknown.
      candidates: in the order of their numbers.
      classified: what a nodule classifier predicts of them, in this order; None without one.
    """
    if not candidates:
        return []
    place = None if lung is None or not lung.grid.any() else LungMap(lung, scan.affine_lps)
    affine_lps = report_json.affine_of(scan)
    return [
        _describe(
            number,
            candidate,
            scan,
            place,
            affine_lps,
            None if classified is None else float(classified.probability[number - 1]),
            {} if classified is None else _ratings(classified, number - 1),
        )
        for number, candidate in enumerate(candidates, start=1)
    ]


def _describe(
    number: int,
    candidate: Candidate,
    scan: Scan,
    place: LungMap | None,
    affine_lps: np.ndarray,
    malignancy: float | None,
    ratings: Mapping[str, PredictedRating],
) -> PredictedNodule:
    centre = candidate.centre_voxel
    z, row, column = centre.tolist()
    x_mm, y_mm, z_mm = (affine_lps @ (*centre[::-1], 1))[:3].tolist()
    location = Location(None, None, None) if place is None else place.locate(candidate.voxels)
    kind = nodule_type.of_expected(ratings["texture"].expected) if ratings else None
    solid = None
    if kind == "part-solid":
        solid = measure.solid_part(candidate.voxels, scan.voxels[tuple(candidate.voxels.T)], scan.spacing_mm)
    assessed = _lung_rads(kind, candidate, solid, ratings, at_pleura=location.pleura_mm == 0)
    return PredictedNodule(
        number=number,
        centre_voxel=(z, row, column),
        centre_mm=(x_mm, y_mm, z_mm),
        volume_mm3=candidate.volume_mm3,
        longest_mm=candidate.longest_mm,
        perpendicular_mm=candidate.perpendicular_mm,
        mean_hu=candidate.mean_hu,
        score=candidate.score,
        malignancy=malignancy,
        slices=candidate.slices,
        mean_mm=(candidate.longest_mm + candidate.perpendicular_mm) / 2,
        fleischner_mm=measure.fleischner_mm(candidate.longest_mm, candidate.perpendicular_mm),
        type=kind,
        solid_mean_mm=None if solid is None else sum(solid) / 2,
        ratings=ratings,
        side=location.side,
        zone=location.zone,
        pleura_mm=location.pleura_mm,
        lung_rads=assessed.category,
        lung_rads_reason=assessed.reason,
    )


def _ratings(classified: NodulePrediction, row: int) -> dict[str, PredictedRating]:
    chances = classified.rating_probabilities
    if chances is None:
        each = zip(RATING_NAMES, classified.ratings[row].tolist(), strict=True)
        return {name: PredictedRating(expected) for name, expected in each}
    spread = rating_distribution.standard_deviation(chances[row])
    return {
        name: PredictedRating(
            float(classified.ratings[row, place]), float(spread[place]), tuple(chances[row, place, :highest].tolist())
        )
        for place, (name, highest) in enumerate(zip(RATING_NAMES, HIGHEST, strict=True))
    }


def _lung_rads(
    kind: NoduleType | None,
    candidate: Candidate,
    solid: tuple[float, float] | None,
    ratings: Mapping[str, PredictedRating],
    *,
    at_pleura: bool,
) -> Assessment:
    if kind is None:
        return Assessment(None, "no nodule classifier told its type")
    chances = ratings["calcification"].probabilities
    return lung_rads.nodule_category(
        kind,
        lung_rads.mean_diameter_mm(candidate.longest_mm, candidate.perpendicular_mm),
        solid_mean_mm=None if solid is None else lung_rads.mean_diameter_mm(*solid),
        smooth_juxtapleural=at_pleura
        and all(low <= ratings[name].expected <= high for name, (low, high) in _SMOOTH.items()),
        benign_calcification=bool(chances) and bool(nodule_type.is_benign_calcification(np.array(chances))),
    )
