"""Paints diffuse disease, and what only resembles it, into the lungs of a chest CT, real or phantom.

A schematic disease in a real chest shows from which extent a check notices it; it is no picture of a real one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lungjax.ct.lungs import Lungs, find_lungs

CONSOLIDATION_HU = (-100.0, 40.0)
"""Its mean lies between them."""
FLUID_HU = 10.0
NOISE_HU = 15.0
"""Standard deviation within both."""
GROUND_GLASS_HU = 250.0
"""Added to the lung's own."""
BRONCHUS_HU, BRONCHUS_MM, BRONCHI = -950.0, 2.0, 8
"""Of an air bronchogram: HU, radius, and how many run through a consolidation."""
PATCH_MM = 25.0
"""Mean radius of a patch of ground glass."""
CONTRAST_HU = 250.0
VESSEL_HU = -100.0
"""Denser than this, within the lungs, is vessel."""


class Chest:
    """A scan into which disease is painted.

    Args:
      hu: (slices, rows, columns) int16, slices from the feet to the head, rows to the back, columns to the patient's
        left.
      spacing_mm: (slice, row, column).
      seed: of all that is random.

    Attributes:
      lungs_ml: volume of its lungs.
    """

    def __init__(self, hu: np.ndarray, spacing_mm: tuple[float, float, float], *, seed: int):
        self.hu, self.spacing_mm = hu, spacing_mm
        self.lungs: Lungs = find_lungs(hu, spacing_mm)
        self._rng = np.random.default_rng(seed)
        self._voxels = np.argwhere(self.lungs.mask()).astype(np.int32)
        self._hu = hu[tuple(self._voxels.T)].astype(np.float32)
        self._mm = self._voxels * np.asarray(spacing_mm, np.float32)
        self._ml = float(np.prod(spacing_mm)) / 1000
        self._middle = float(np.median(self._voxels[:, 2]))
        self.lungs_ml = len(self._voxels) * self._ml

    def consolidation(self, ml: float, *, sides: str, lower: bool = True) -> np.ndarray:
        """Lung without air, but for its larger bronchi: a lobe, where `ml` is large.

        Args:
          ml: volume in all.
          sides: `right`, `left`, or `both`.
          lower: the back of the base, or the front of the apex.
        """
        scale = np.ptp(self._mm, axis=0)
        depth = self._mm[:, 1] / scale[1] - self._mm[:, 0] / scale[0]  # Parallel to the oblique fissure.
        region = self._most(depth if lower else -depth, ml, sides)
        fill = np.float32(self._rng.uniform(*CONSOLIDATION_HU)) + self._noise(NOISE_HU)
        painted = np.where(region, np.maximum(self._hu, fill), self._hu)
        painted[self._bronchi(region)] = BRONCHUS_HU
        return self._with(painted)

    def effusion(self, ml: float, *, sides: str) -> np.ndarray:
        """Free fluid in a patient on the back: a layer behind the lung, with a level."""
        region = self._most(self._mm[:, 1], ml, sides)
        return self._with(np.where(region, FLUID_HU + self._noise(NOISE_HU), self._hu))

    def ground_glass(self, ml: float, *, sides: str) -> np.ndarray:
        """Patches with soft edges, mostly at the pleura, `GROUND_GLASS_HU` denser than the lung was."""
        inside = self._side(sides)
        share = np.zeros(len(self._voxels), np.float32)
        while share.sum() * self._ml < ml and share.sum() < 0.95 * inside.sum():
            centre = self._mm[self._rng.choice(np.flatnonzero(inside), 8)]
            middle = self._mm.mean(axis=0)[1:]
            centre = centre[np.linalg.norm((centre[:, 1:] - middle), axis=1).argmax()]
            radius = PATCH_MM * float(self._rng.uniform(0.6, 1.4))
            away = np.linalg.norm((self._mm - centre) / self._rng.uniform(0.7, 1.3, 3).astype(np.float32), axis=1)
            patch = np.clip((radius - away) / 6 + 0.5, 0, 1) * inside
            share = np.maximum(share, patch)
        return self._with(np.where(self._hu < VESSEL_HU, self._hu + GROUND_GLASS_HU * share, self._hu))

    def mass(self, diameter_mm: float) -> np.ndarray:
        """One ball of soft tissue in the middle of the right lung."""
        right = self._mm[self._voxels[:, 2] < self._middle]
        inside = np.linalg.norm(self._mm - np.median(right, axis=0), axis=1) < diameter_mm / 2
        return self._with(np.where(inside, 40.0 + self._noise(NOISE_HU), self._hu))

    def breath(self, added_hu: float) -> np.ndarray:
        """A deeper breath (below 0) or a shallower one: all of the lungs but their vessels changed."""
        return self._with(np.where(self._hu < VESSEL_HU, self._hu + added_hu, self._hu))

    def contrast(self) -> np.ndarray:
        """Vessels of the lungs full of contrast medium."""
        return self._with(np.where(self._hu >= VESSEL_HU, self._hu + CONTRAST_HU, self._hu))

    def _with(self, values: Any) -> np.ndarray:
        hu = self.hu.copy()
        hu[tuple(self._voxels.T)] = np.clip(np.rint(values), -1024, 3071)
        return hu

    def _noise(self, sigma: float) -> np.ndarray:
        return self._rng.normal(0, sigma, len(self._voxels)).astype(np.float32)

    def _side(self, sides: str) -> np.ndarray:
        right = self._voxels[:, 2] < self._middle
        return {"right": right, "left": ~right, "both": np.ones_like(right)}[sides]

    def _most(self, rank: np.ndarray, ml: float, sides: str) -> np.ndarray:
        """The lung where `rank` is highest, `ml` in all, the same on both sides."""
        region = np.zeros(len(self._voxels), bool)
        chosen = ("right", "left") if sides == "both" else (sides,)
        for side in chosen:
            inside = np.flatnonzero(self._side(side))
            count = min(int(ml / len(chosen) / self._ml), len(inside))
            region[inside[np.argsort(-rank[inside], kind="stable")[:count]]] = True
        return region

    def _bronchi(self, region: np.ndarray) -> np.ndarray:
        """Indices of the voxels of straight tubes through `region`, from where it is next to the chest's middle."""
        inside = np.flatnonzero(region)
        if not len(inside):
            return inside
        mm = self._mm[inside]
        start = mm[np.abs(self._voxels[inside, 2] - self._middle).argmin()]
        tubes = np.zeros(len(inside), bool)
        for end in mm[self._rng.integers(0, len(mm), BRONCHI)]:
            way = (end - start).astype(np.float64)
            along = np.clip((mm - start) @ way / max(float(way @ way), 1e-6), 0, 1)
            tubes |= ((mm - start - along[:, None] * way) ** 2).sum(axis=1) < BRONCHUS_MM**2
        return inside[tubes]


KINDS: dict[str, Callable[[Chest, float, str], np.ndarray]] = {
    "consolidation of the base": lambda chest, ml, sides: chest.consolidation(ml, sides=sides),
    "consolidation of the apex": lambda chest, ml, sides: chest.consolidation(ml, sides=sides, lower=False),
    "effusion": lambda chest, ml, sides: chest.effusion(ml, sides=sides),
    "ground glass": lambda chest, ml, sides: chest.ground_glass(ml, sides=sides),
}
"""Diseases by name."""

HARMLESS: dict[str, Callable[[Chest], np.ndarray]] = {
    "as it is": lambda chest: chest.hu,
    "deep breath, -80 HU": lambda chest: chest.breath(-80.0),
    "shallow breath, +80 HU": lambda chest: chest.breath(80.0),
    "contrast medium in the vessels": lambda chest: chest.contrast(),
    "one mass of 40 mm": lambda chest: chest.mass(40.0),
}
"""What is no diffuse disease, by name."""
