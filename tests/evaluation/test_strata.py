"""Sensitivity by texture, size and number of readers."""

from __future__ import annotations

from lungjax.evaluation.detection import strata

NODULES = [
    {"type": "ground glass", "diameter_mm": 23.0, "readers": 4, "score": 0.8},
    {"type": "part-solid", "diameter_mm": 6.0, "readers": 4, "score": 0.2},
    {"type": "solid", "diameter_mm": 5.9, "readers": 3, "score": 0.5},
    {"type": "solid", "diameter_mm": 12.0, "readers": 3, "score": None},
    {"type": None, "diameter_mm": 3.0, "readers": 3, "score": 0.9},
]


def test_each_nodule_counts_in_its_strata():
    by = strata.sensitivity_by_stratum(NODULES, 0.5)
    counts = {row["name"]: (row["found"], row["nodules"]) for rows in by.values() for row in rows}
    assert counts == {
        "ground glass": (1, 1),
        "part-solid": (0, 1),
        "solid": (1, 2),
        "3 to 6 mm": (2, 2),
        "6 to 10 mm": (0, 1),
        "10 to 20 mm": (0, 1),
        "20 mm and more": (1, 1),
        "3 readers": (2, 3),
        "4 readers": (1, 2),
    }
    assert sum(row["nodules"] for row in by["diameter_mm"]) == len(NODULES)
    assert any("0.67" in line and "3 readers" in line for line in strata.stratum_lines(by))


def test_strata_without_nodules_are_not_shown():
    assert strata.stratum_lines(strata.sensitivity_by_stratum([], 0.5)) == []
