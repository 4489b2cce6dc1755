"""Every row of the table of Lung-RADS v2022 that is computed, on both sides of each boundary."""

from __future__ import annotations

import pytest

from lungjax.prediction import lung_rads
from lungjax.prediction.lung_rads import Assessment


@pytest.mark.parametrize(
    ("mean_mm", "category"),
    [(3.0, "2"), (5.9, "2"), (6.0, "3"), (7.9, "3"), (8.0, "4A"), (14.9, "4A"), (15.0, "4B"), (60.0, "4B")],
)
def test_solid(mean_mm: float, category: str):
    found = lung_rads.nodule_category("solid", mean_mm)
    assert found.category == category
    assert f"solid, mean diameter {mean_mm:.1f} mm" in found.reason


@pytest.mark.parametrize(
    ("mean_mm", "solid_mean_mm", "category"),
    [
        (5.9, 0.0, "2"),
        (5.9, 5.9, "2"),
        (6.0, 0.0, "3"),
        (6.0, 5.9, "3"),
        (25.0, 5.9, "3"),
        (6.0, 6.0, "4A"),
        (25.0, 6.0, "4A"),
        (25.0, 7.9, "4A"),
        (8.0, 8.0, "4B"),
        (25.0, 8.0, "4B"),
        (25.0, 24.0, "4B"),
    ],
)
def test_part_solid(mean_mm: float, solid_mean_mm: float, category: str):
    found = lung_rads.nodule_category("part-solid", mean_mm, solid_mean_mm=solid_mean_mm)
    assert found.category == category
    assert f"solid part {solid_mean_mm:.1f} mm" in found.reason


def test_a_part_solid_nodule_needs_its_solid_part():
    with pytest.raises(ValueError, match="solid part"):
        lung_rads.nodule_category("part-solid", 12.0)


@pytest.mark.parametrize(("mean_mm", "category"), [(3.0, "2"), (8.0, "2"), (29.9, "2"), (30.0, "3"), (60.0, "3")])
def test_ground_glass(mean_mm: float, category: str):
    assert lung_rads.nodule_category("ground glass", mean_mm).category == category


@pytest.mark.parametrize(("mean_mm", "category"), [(5.0, "2"), (6.0, "2"), (9.9, "2"), (10.0, "4A"), (15.0, "4B")])
def test_a_smooth_solid_nodule_at_the_pleura(mean_mm: float, category: str):
    found = lung_rads.nodule_category("solid", mean_mm, smooth_juxtapleural=True)
    assert found.category == category
    assert ("at the pleura" in found.reason) == (mean_mm < 10)


def test_only_a_solid_nodule_is_harmless_at_the_pleura():
    part_solid = lung_rads.nodule_category("part-solid", 9.0, solid_mean_mm=8.0, smooth_juxtapleural=True)
    ground_glass = lung_rads.nodule_category("ground glass", 31.0, smooth_juxtapleural=True)
    assert (part_solid.category, ground_glass.category) == ("4B", "3")


@pytest.mark.parametrize("kind", ["solid", "part-solid", "ground glass"])
def test_benign_calcification(kind: lung_rads.NoduleType):
    assert lung_rads.nodule_category(kind, 40.0, solid_mean_mm=30.0, benign_calcification=True).category == "1"


@pytest.mark.parametrize(
    ("long_mm", "short_mm", "mean_mm"),
    [
        (6.0, 5.8, 5.9),
        (6.0, 5.9, 6.0),  # 5.95 is rounded up.
        (6.04, 5.84, 5.9),  # Of 6.0 and 5.8.
        (6.05, 5.85, 6.0),  # Of 6.1 and 5.9.
        (7.949, 7.949, 7.9),
        (7.95, 7.95, 8.0),
        (0.0, 0.0, 0.0),
        (14.94999999, 14.94999999, 15.0),  # 14.95 but for the arithmetic of floats.
    ],
)
def test_the_mean_diameter_has_one_decimal(long_mm: float, short_mm: float, mean_mm: float):
    assert lung_rads.mean_diameter_mm(long_mm, short_mm) == mean_mm


def test_a_scan_has_the_highest_category_of_its_nodules():
    nodules: list[tuple[int, Assessment]] = [
        (1, lung_rads.nodule_category("solid", 7.0)),
        (2, lung_rads.nodule_category("solid", 9.0)),
        (3, lung_rads.nodule_category("ground glass", 12.0)),
    ]
    assert lung_rads.scan_category(nodules) == Assessment("4A", "nodule 2: solid, mean diameter 9.0 mm")
    for count, category in ((0, "1"), (1, "3"), (2, "4A"), (3, "4A")):
        assert lung_rads.scan_category(nodules[:count]).category == category
    larger = (4, lung_rads.nodule_category("solid", 15.0))
    assert lung_rads.scan_category([*nodules, larger]).category == "4B"
    assert lung_rads.scan_category([*nodules, (4, Assessment(None, "unknown"))]) == Assessment(None, "unknown")


def test_it_is_no_reading_and_says_what_it_leaves_out():
    for words in ("not a reading", "baseline", "4X", "modifier S", "airway nodules", "cysts", "fissure"):
        assert words in lung_rads.NOTE
