"""The sheet of nodules: above each reader's outline, below what was found; read back from the figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from lungjax.evaluation.plots import mask_edges, nodule_sheet, training_plots
from lungjax.evaluation.plots.nodule_sheet import NoduleView


def view(number: int, **changed: Any) -> NoduleView:
    readers, found, candidates = (np.zeros((40, 50), np.uint8) for _ in range(3))
    readers[10:20, 12:22] = 0b101
    readers[12:18, 14:20] |= 0b10
    found[11:19, 13:21] = 1
    candidates[30:33, 5:9] = 1
    about = {"patient_id": "P", "middle_slice": number, "readers": 3, "diameter_mm": 7.5, "rank": 2, "score": 0.91}
    hu = np.full((40, 50), -800, np.int16)
    return NoduleView(hu, readers, found > 0, candidates > 0, 0.7, about | {"dice": 0.625} | changed)


def test_outlines_and_titles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    figures: list[Figure] = []
    save = training_plots.save
    monkeypatch.setattr(training_plots, "save", lambda figure, path: (figures.append(figure), save(figure, path))[1])
    views = [view(0), view(8, rank=None, score=None, readers=1), *(view(n) for n in range(2, 14))]
    nodule_sheet.draw_sheet(views, tmp_path / "n.png", threshold=0.79)
    assert (tmp_path / "n.png").stat().st_size > 10_000
    panels = figures[0].axes
    assert len([axes for axes in panels if axes.images]) == 2 * nodule_sheet.MOST
    above, below = panels[0], panels[4]
    assert above.get_title() == "P, slice 1\n3 readers, 7.5 mm"
    assert below.get_title() == "candidate 2, score 0.91\nDice 0.62 in 3-D"
    assert panels[1].get_title() == "P, slice 9\n1 reader, 7.5 mm"
    assert panels[5].get_title().startswith("no candidate's centre in it")
    first = views[0]
    for axes, masks in (
        (above, [first.readers >> slot & 1 for slot in range(8)]),
        (below, [first.candidates, first.nodules]),
    ):
        drawn = [np.array(part.get_segments()) for part in axes.collections if isinstance(part, LineCollection)]
        for sides, mask in zip(drawn, masks, strict=True):
            np.testing.assert_array_equal(sides.reshape(-1, 2, 2), mask_edges.edges(mask))
    (scale,) = above.lines
    assert np.ptp(np.asarray(scale.get_xdata(), float)) == pytest.approx(10 / 0.7)
