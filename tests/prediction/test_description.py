"""What is reported of drawn shapes of known size, and what follows from ratings."""

from __future__ import annotations

from typing import Any

import chests
import numpy as np
import pytest

from lungjax.ct.lungs import find_lungs
from lungjax.ct.scan import RATING_NAMES
from lungjax.prediction import description, lung_rads, measure
from lungjax.prediction.candidates import Candidate
from lungjax.prediction.nodule_classifier import NodulePrediction
from lungjax.prediction.predicted import PredictedNodule
from lungjax.tasks.classify import HIGHEST

SPACING_MM = (2.0, 0.5, 0.5)


def ellipsoid(*half_mm: float) -> np.ndarray:
    """Voxels of an ellipsoid, slice, row and column half axes, in a grid of `SPACING_MM`."""
    reach = [int(half / mm) + 2 for half, mm in zip(half_mm, SPACING_MM, strict=True)]
    place = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), axis=-1)
    inside = ((place * SPACING_MM / half_mm) ** 2).sum(axis=-1) <= 1
    return np.argwhere(inside)


def candidate(voxels: np.ndarray, spacing_mm: Any = SPACING_MM, hu: float = 40.0) -> Candidate:
    widest, longest_mm, perpendicular_mm = measure.recist(voxels, spacing_mm)
    return Candidate(voxels, 0.9, float(len(voxels) * np.prod(spacing_mm)), longest_mm, perpendicular_mm, widest, hu)


def classified(count: int, **expected: float) -> NodulePrediction:
    """Ratings of a solid smooth oval nodule, certain of each; `expected` replaces some."""
    usual = {"calcification": 6, "sphericity": 4, "margin": 5, "texture": 5, "subtlety": 4}
    ratings = np.array([[(usual | expected).get(name, 1) for name in RATING_NAMES]] * count, np.float32)
    chances = np.zeros((count, 9, 6))
    for place, rating in enumerate(ratings[0].tolist()):
        low = int(rating)
        chances[:, place, low - 1] = 1 - (rating - low)
        chances[:, place, min(low, 5)] += rating - low
    return NodulePrediction(np.full(count, 0.25), ratings, chances)


def described(voxels: np.ndarray, ratings: NodulePrediction | None, hu: np.ndarray | None = None) -> PredictedNodule:
    scan = chests.scan(hu)
    lung = find_lungs(scan.voxels, scan.spacing_mm)
    (nodule,) = description.describe(scan, lung, [candidate(voxels, scan.spacing_mm)], ratings)
    return nodule


@pytest.mark.parametrize("radius_mm", [3.0, 5.0, 10.0])
def test_the_diameters_of_a_ball(radius_mm: float):
    """To within a pixel."""
    _, longest_mm, perpendicular_mm = measure.recist(ellipsoid(radius_mm, radius_mm, radius_mm), SPACING_MM)
    assert (longest_mm, perpendicular_mm) == pytest.approx((2 * radius_mm,) * 2, abs=SPACING_MM[1])
    assert measure.fleischner_mm(longest_mm, perpendicular_mm) == pytest.approx(2 * radius_mm, abs=1)


def test_the_diameters_of_an_ellipsoid():
    _, longest_mm, perpendicular_mm = measure.recist(ellipsoid(5.0, 4.0, 8.0), SPACING_MM)
    assert (longest_mm, perpendicular_mm) == pytest.approx((16.0, 8.0), abs=SPACING_MM[1])


@pytest.mark.parametrize(
    ("axes_mm", "rounded_mm"), [((6.0, 4.0), 5), ((6.0, 4.9), 5), ((6.0, 5.0), 6), ((7.0, 6.0), 7), ((7.9, 4.0), 6)]
)
def test_the_fleischner_diameter_is_the_mean_to_the_nearest_mm(axes_mm: tuple[float, float], rounded_mm: int):
    assert measure.fleischner_mm(*axes_mm) == rounded_mm


def test_the_solid_part_is_the_largest_above_the_threshold():
    """Of a ball of ground glass with two solid balls in it."""
    whole = ellipsoid(10.0, 10.0, 10.0)
    away = (whole - whole.mean(axis=0)) * SPACING_MM
    large = ((away - (0, 3, 0)) ** 2).sum(axis=1) <= 4**2
    small = ((away - (0, -6, 0)) ** 2).sum(axis=1) <= 2**2
    hu = np.where(large | small, measure.SOLID_HU, measure.SOLID_HU - 1)
    assert measure.solid_part(whole, hu, SPACING_MM) == pytest.approx((8.0, 8.0), abs=SPACING_MM[1])
    assert measure.solid_part(whole, np.full(len(whole), -600), SPACING_MM) == (0.0, 0.0)
    assert measure.solid_part(whole, np.full(len(whole), 0), SPACING_MM) == measure.recist(whole, SPACING_MM)[1:]
    one = np.where(np.arange(len(whole)) == 500, 0, -600)
    assert measure.solid_part(whole, one, SPACING_MM) == pytest.approx((0.5, 0.5))


def test_a_ball_in_a_chest():
    nodule = described(np.argwhere(chests.ball(*chests.BALLS[0])), classified(1))
    assert nodule.volume_mm3 == pytest.approx(4 / 3 * np.pi * 10**3, rel=0.15)
    assert nodule.mean_mm == pytest.approx(20, abs=2.5)
    assert nodule.mean_mm == (nodule.longest_mm + nodule.perpendicular_mm) / 2
    assert nodule.fleischner_mm == round(nodule.mean_mm)
    assert (nodule.side, nodule.zone, nodule.type, nodule.solid_mean_mm) == ("right", "middle", "solid", None)
    assert nodule.pleura_mm is not None
    assert nodule.pleura_mm > 20
    assert nodule.lung_rads == "4B"
    assert nodule.ratings["texture"].expected == 5
    assert nodule.ratings["texture"].probabilities == (0, 0, 0, 0, 1)
    assert [len(nodule.ratings[name].probabilities) for name in RATING_NAMES] == list(HIGHEST)
    assert nodule.malignancy == 0.25


def test_a_part_solid_ball_has_a_solid_part():
    """Measured in the scan: a core of 4 mm radius in a ball of 10 mm, in voxels of 2.5 x 2.5 x 5 mm."""
    centre, radius_mm = chests.BALLS[0]
    hu = chests.chest(balls=())
    hu[chests.ball(centre, radius_mm)] = -600
    hu[chests.ball(centre, 5.1)] = 20
    nodule = described(np.argwhere(chests.ball(centre, radius_mm)), classified(1, texture=3.8), hu)
    assert nodule.type == "part-solid"
    assert nodule.solid_mean_mm == pytest.approx(10.2, abs=2.5)
    assert nodule.lung_rads == "4B"
    assert "its solid part" in nodule.lung_rads_reason
    hu[chests.ball(centre, 5.1)] = -600
    nodule = described(np.argwhere(chests.ball(centre, radius_mm)), classified(1, texture=3.8), hu)
    assert (nodule.solid_mean_mm, nodule.lung_rads) == (0.0, "3")


def at_pleura() -> np.ndarray:
    """A ball of about 8 mm, at the chest wall of a lung in `chests.chest`."""
    return np.argwhere(chests.ball((20, 64, 18), 4.6))


@pytest.mark.parametrize(
    ("expected", "category"),
    [
        ({}, "2"),
        ({"spiculation": 3}, "4A"),
        ({"lobulation": 3}, "4A"),
        ({"margin": 3}, "4A"),
        ({"sphericity": 5}, "4A"),
        ({"sphericity": 1}, "4A"),
        ({"texture": 1}, "2"),
    ],
)
def test_smooth_nodules_at_the_pleura_are_judged_by_their_ratings(expected: dict[str, float], category: str):
    hu = chests.chest(balls=())
    hu[tuple(at_pleura().T)] = 40
    nodule = described(at_pleura(), classified(1, **expected), hu)
    assert nodule.pleura_mm == 0
    assert 8 <= lung_rads.mean_diameter_mm(nodule.longest_mm, nodule.perpendicular_mm) < 10
    assert nodule.lung_rads == category


@pytest.mark.parametrize(("calcification", "category"), [(1, "1"), (2, "1"), (3, "1"), (4, "4B"), (5, "1"), (6, "4B")])
def test_calcification_is_benign_unless_it_is_off_the_centre(calcification: float, category: str):
    nodule = described(np.argwhere(chests.ball(*chests.BALLS[0])), classified(1, calcification=calcification))
    assert nodule.lung_rads == category


def test_without_a_nodule_classifier_there_is_no_type():
    nodule = described(np.argwhere(chests.ball(*chests.BALLS[0])), None)
    assert (nodule.type, nodule.ratings, nodule.lung_rads, nodule.malignancy) == (None, {}, None, None)
    assert "no nodule classifier" in nodule.lung_rads_reason
    assert nodule.side == "right"


def test_an_exported_classifier_gives_ratings_without_a_spread():
    spread = classified(1, calcification=3.0)
    plain = NodulePrediction(spread.probability, spread.ratings)
    nodule = described(np.argwhere(chests.ball(*chests.BALLS[0])), plain)
    assert nodule.type == "solid"
    assert (nodule.ratings["texture"].standard_deviation, nodule.ratings["texture"].probabilities) == (None, ())
    assert nodule.lung_rads == "4B", "whether it is calcified is not known"


def test_no_lungs_no_place():
    nodule = described(
        np.argwhere(chests.ball((20, 64, 64), 10.0)), None, np.full(chests.SHAPE, chests.TISSUE_HU, np.int16)
    )
    assert (nodule.side, nodule.zone, nodule.pleura_mm) == (None, None, None)
