"""What tests of charts and of overlays share."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from lungjax.evaluation.plots import training_plots


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
    """Every figure saved in a test, by its file's name."""
    saved: dict[str, Figure] = {}
    save = training_plots.save

    def remember(figure: Figure, path: Path) -> Path:
        saved[path.name] = figure
        return save(figure, path)

    monkeypatch.setattr(training_plots, "save", remember)
    return saved
