"""Windows of the radiologists: which HU are shown from black to white, as centre and width."""

from __future__ import annotations

LUNG_HU = (-600.0, 1500.0)
SOFT_TISSUE_HU = (40.0, 400.0)
BONE_HU = (400.0, 1800.0)


def ends(window_hu: tuple[float, float]) -> tuple[float, float]:
    """The HU that are black and white."""
    centre, width = window_hu
    return centre - width / 2, centre + width / 2
