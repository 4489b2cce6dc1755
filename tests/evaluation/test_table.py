"""The printed table: every figure in its place, aligned."""

from __future__ import annotations

import math
from typing import Any

import pytest
import scans

from lungjax import metrics
from lungjax.evaluation.segmentation import report, table


@pytest.fixture(scope="module")
def compared() -> dict[str, Any]:
    some = scans.several(8, patients=5)
    worse = [
        scans.Series(one.patient, one.name, one.marks, one.prediction & ~one.marks[0, 0], one.probability)
        for one in some
    ]
    return report.segmentation_figures(scans.tally_of(some), scans.tally_of(worse), resamples=50)


def _rows(lines: list[str], title: str) -> dict[str, str]:
    """The lines below a title, by their label."""
    start = lines.index(title) + 1
    stop = next(n for n in range(start, len(lines)) if not lines[n].startswith("  "))
    return {line[:23].strip(): line for line in lines[start:stop]}


def test_every_figure_stands_in_its_column(compared: dict[str, Any]):
    lines = table.segmentation_table({"split": "test", **compared}).splitlines()
    assert lines[0] == "split: test"
    assert lines[1].startswith(f"{compared['patients']} patients, {compared['slices']} slices, ")
    assert lines[2].startswith(f"{compared['nodules']} nodules, {compared['nodules_marked']} where at least 2")
    header = next(line for line in lines if line.split() == ["model", "readers"])
    slices = _rows(lines, "against the majority, mean per slice")
    assert list(slices)[:5] == list(metrics.SCORES)
    for column, found in (("model", compared), ("readers", compared["readers"])):
        at = header.index(column)
        for label, name in (("dice", "dice"), ("HD95, mm", "hd95_mm"), ("dice, own reference", "dice_own")):
            figure = found["per_slice"][name]
            cell = f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
            assert slices[label][at:].startswith(cell)
        assert slices["HD95 left out"][at:].split()[0] == str(found["per_slice"]["hd95_mm"]["left_out"])
        ged = found["ged"]["16"]["value"]
        rows = _rows(lines, "GED^2, lower is better (readers: the best possible)")
        assert rows["16 samples"][at:].startswith(f"{ged:.3f}")
    assert "50 resamples, seed 0" in "\n".join(lines)
    assert max(map(len, lines)) <= 108
    assert lines == [line.rstrip() for line in lines]


def test_a_second_table_holds_both_models_and_their_difference(compared: dict[str, Any]):
    lines = table.segmentation_table(compared).splitlines()
    place = next(n for n, line in enumerate(lines) if line.split() == ["A", "B", "A", "-", "B"])
    row = _rows(lines[place:], "against the majority, pooled over all slices")["recall"]
    difference = compared["against"]["difference"]["pooled"]["recall"]
    assert difference["value"] > 0
    assert not any(line.startswith("  HD95 left out") for line in lines[place:])
    assert [cell.strip() for cell in row.split("  ") if cell][1:] == [
        f"{figure['value']:z.3f} [{figure['low']:z.3f}, {figure['high']:z.3f}]"
        for figure in (compared["pooled"]["recall"], compared["against"]["pooled"]["recall"], difference)
    ]


def test_undefined_figures_are_dashes_and_distances_without_spacing_one_row():
    bare = report.segmentation_figures(
        scans.tally_of(scans.several(3, patients=1), spacing_mm=(math.nan, math.nan, math.nan))
    )
    lines = table.segmentation_table(bare).splitlines()
    rows = _rows(lines, "against the majority, mean per slice")
    assert rows["HD95, surface dice"].split() == ["HD95,", "surface", "dice", "-", "-"]
    assert "surface dice 1 mm" not in rows
    assert rows["dice"].endswith(" [-]")
    text = "\n".join(lines)
    assert "none: one patient" in text
    assert "split" not in text
    assert "None" not in text
    assert "nan" not in text


def test_one_reader_has_one_column():
    lines = table.segmentation_table(
        report.segmentation_figures(scans.tally_of(scans.several(4, patients=3), readers=1), resamples=9)
    ).splitlines()
    assert "  readers" not in "\n".join(lines)
    assert lines[0].endswith("that the reader marked")
    assert not any(line.startswith(("against each reader", "GED")) for line in lines)
