"""The printed table: every figure in its place, aligned."""

from __future__ import annotations

import numpy as np

from lungjax.evaluate import segmentation, table

COUNTS = np.array([[6, 2, 2, 90], [0, 0, 0, 100], [3, 0, 3, 94]])  # Dice 0.75, 1, 0.667; pooled 18/25
READERS = np.stack([COUNTS[[0, 0, 0]]] * 4)


def _report(patients: list[str]) -> dict:
    return segmentation.report(model_counts=COUNTS, reader_counts=READERS, patients=patients)


def test_table_holds_every_figure_in_aligned_columns():
    report = {"split": "test", **_report(["a", "b", "c"])}
    lines = table.text(report).splitlines()
    assert lines[:2] == ["split: test", "3 patients, 3 slices, 2 where at least 2 readers agree"]
    header = next(line for line in lines if "model" in line and "readers" in line)
    rows = [line for line in lines if line.startswith("  ") and "[" in line]
    assert [row.split("0.")[0].strip() for row in rows[:5]] == list(segmentation.SCORES)
    assert len(rows) == 5 + 7
    for row in rows:
        assert row[header.index("readers") :][:2] in ("0.", "1.")
        assert row[header.index("model") :][:2] in ("0.", "1.")
    dice = report["pooled"]["dice"]
    assert rows[0][header.index("model") :].startswith(f"0.720 [{dice['low']:.3f}, {dice['high']:.3f}]")
    assert rows[0][header.index("readers") :] == "0.750 [0.750, 0.750]"
    assert rows[5][header.index("model") :].startswith(f"{(0.75 + 2 / 3) / 2:.3f}")
    assert "1000 resamples, seed 0" in table.text(report)


def test_one_reader_has_no_column():
    report = segmentation.report(model_counts=COUNTS, reader_counts=None, patients=["a", "b", "c"])
    lines = table.text(report).splitlines()
    assert lines[0] == "3 patients, 3 slices, 2 where the reader marked anything"
    assert not any("readers" in line or "own reference" in line for line in lines)
    rows = [line for line in lines if line.startswith("  ") and "[" in line]
    dice = report["pooled"]["dice"]
    assert rows[0].split(maxsplit=1) == ["dice", f"0.720 [{dice['low']:.3f}, {dice['high']:.3f}]"]
    assert len(rows) == 5 + 6


def test_undefined_figures_are_dashes():
    text = table.text(_report(["a", "a", "a"]))
    assert "0.720 [-]" in text
    assert "none: one patient" in text
    assert "split" not in text
    assert "None" not in text
