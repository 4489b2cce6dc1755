"""A schematic chest: lungs, mediastinum, bones and skin as signed distances, drawn slice by slice.

Lengths are mm. The chest is drawn once, in the coordinates of a reference chest (x to the patient's left, y
to the back, `up` from the lungs' lowest point to their apex at 250), and placed in a scan by shift and scale.
A signed distance is negative inside. Only smooth shapes live here: vessels, nodules and noise come later.
"""

from __future__ import annotations

import dataclasses

import numpy as np

LUNG_HEIGHT = 250.0
"""From the lowest recess behind the diaphragm to the apex, in the reference chest."""
RIB_PITCH = 27.0
VERTEBRA_PITCH = 24.0

_UP = np.array([-250, 0, 40, 90, 140, 185, 215, 235, 246, 250, 300], np.float32)
_HALF_WIDTH = np.array([135, 131, 135, 136, 131, 116, 94, 70, 42, 20, 20], np.float32)
_HALF_DEPTH = np.array([92, 92, 95, 95, 92, 81, 66, 49, 30, 15, 15], np.float32)
_BACKWARD = np.array([0, 0, 0, 0, 2, 8, 16, 22, 26, 28, 28], np.float32)
"""The pleural cavity's half axes and its centre's shift at `_UP`: to the apex it narrows and moves back."""
_BETWEEN_UP = np.array([0, 100, 150, 190, 215, 250], np.float32)
_BETWEEN_WIDTH = np.array([24, 26, 30, 31, 36, 30], np.float32)


@dataclasses.dataclass(frozen=True)
class Chest:
    """One patient's chest, placed in a scan's coordinates.

    Attributes:
      centre_mm: (x, y) of the reference chest's origin, from the centre of the image.
      scale: mm in the scan for one mm of the reference chest, in the plane of a slice.
      lungs_mm: (lowest z, apex z).
      fat_mm: thickness of the fat under the skin.
      heart: size of the heart, 1 for the reference's.
      dome_mm: how far the diaphragm stands above the reference's.
      blood_hu: HU of blood; 45 without contrast medium.
      pockets_mm: (n, 6) centre (x, y, z) and half axes of ellipsoids that are lung whatever the anatomy says.
    """

    centre_mm: tuple[float, float]
    scale: float
    lungs_mm: tuple[float, float]
    fat_mm: float
    heart: float
    dome_mm: float
    blood_hu: float
    pockets_mm: np.ndarray

    def reference(self, x_mm, y_mm, z_mm):
        """Scan coordinates, from the centre of the image, to the reference chest's."""
        low, high = self.lungs_mm
        x = (x_mm - self.centre_mm[0]) / self.scale
        y = (y_mm - self.centre_mm[1]) / self.scale
        return x, y, (z_mm - low) * (LUNG_HEIGHT / (high - low))

    def lung_distance_mm(self, x_mm, y_mm, z_mm):
        """Signed distance to the lungs' surface, negative in lung; float, the arguments' broadcast shape."""
        x, y, up = self.reference(x_mm, y_mm, z_mm)
        cavity = _smooth_max(cavity_distance(x, y, up), np.maximum(-up, up - LUNG_HEIGHT), 4.0)
        lung = _smooth_max(cavity, -self._between_lungs(x, y, up), 8.0) * self.scale
        for px, py, pz, *axes in self.pockets_mm.tolist():
            if np.ndim(z_mm) == 0 and abs(z_mm - pz) > axes[2] + 30:
                continue  # Too far above or below to change anything in this slice.
            pocket = ellipsoid(x_mm - px, y_mm - py, z_mm - pz, axes)
            lung = -_smooth_max(-lung, -pocket, 8.0)
        return lung

    def _between_lungs(self, x, y, up):
        """Everything inside the cavity that is not lung: mediastinum, heart, aorta, spine, diaphragm."""
        width = profile(up, _BETWEEN_UP, _BETWEEN_WIDTH)
        inside = ellipsoid(x, y + 8, 0.0, (width, 88.0, 1.0))
        inside = np.minimum(inside, self.heart_distance(x, y, up))
        inside = np.minimum(inside, ellipsoid(x, y - 76, 0.0, (25.0, 30.0, 1.0)))
        inside = np.minimum(inside, np.hypot(x - 22, y - 50) - 14)
        inside = np.minimum(inside, ellipsoid(x - 18, y - 8, up - 188, (26.0, 42.0, 22.0)))
        for dome in self.domes(x, y, up):
            inside = np.minimum(inside, dome)
        return inside

    def heart_distance(self, x, y, up):
        """The heart leans to the left and to the front, its lower face on the diaphragm."""
        axes = (58 * self.heart, 50 * self.heart, 60 * self.heart)
        along, across = 0.87 * (x - 20) - 0.5 * (y + 28), 0.5 * (x - 20) + 0.87 * (y + 28)
        return ellipsoid(along, across, up - 78, axes)

    def domes(self, x, y, up):
        """The diaphragm: the right dome over the liver stands higher than the left over the stomach."""
        right = ellipsoid(x + 64, y + 8, up + 25 - self.dome_mm, (80.0, 84.0, 96.0))
        left = ellipsoid(x - 66, y + 8, up + 25 - self.dome_mm, (74.0, 82.0, 80.0))
        return right, left


def place(rng: np.random.Generator, *, field_of_view_mm: float, z_mm: np.ndarray, nodules_mm: np.ndarray) -> Chest:
    """A random chest that holds a scan's nodules in its lungs.

    Of some random chests the one whose lungs miss the nodules least; then every nodule gets a pocket of lung
    around it, so that the few outside lie in a bulge of the lung, or at its wall.

    Args:
      rng: the only source of chance.
      field_of_view_mm: width of the square image.
      z_mm: (slices,) positions, ascending.
      nodules_mm: (n, 6) float: centre (x, y, z) from the image's centre, and half extents.
    """
    bottom, top = float(z_mm[0]), float(z_mm[-1])
    fits = min(1.0, field_of_view_mm / 330)  # A small field of view is chosen for a small patient.
    look = {
        "fat_mm": float(rng.uniform(8, 30)),
        "heart": float(rng.uniform(0.9, 1.12)),
        "dome_mm": float(rng.uniform(-8, 14)),
        "blood_hu": float(rng.choice([45.0, 45.0, 160.0, 230.0])),
    }
    pockets = np.array(nodules_mm, np.float64).reshape(-1, 6)
    pockets[:, 3:] += rng.uniform(5, 12, size=(len(pockets), 1))
    best, best_miss = None, np.inf
    for _ in range(64):
        apex = top - rng.uniform(10, max(30.0, top - bottom - 340))
        low = max(bottom + 10, apex - rng.uniform(215, 290))
        chest = Chest(
            centre_mm=(float(rng.uniform(-8, 8)), float(rng.uniform(-12, 38))),
            scale=float(rng.uniform(0.88, 1.1)) * fits,
            lungs_mm=(float(low), float(apex)),
            pockets_mm=pockets[:0],
            **look,
        )
        away = chest.lung_distance_mm(*nodules_mm[:, :3].T) if len(nodules_mm) else np.zeros(1)
        miss = float(np.maximum(away + 6, 0).sum())
        if miss < best_miss:
            best, best_miss = chest, miss
    assert best is not None
    return dataclasses.replace(best, pockets_mm=pockets)


def cavity_distance(x, y, up):
    """Signed distance to the inner face of the ribs: a rounded box, narrower to the apex."""
    half_width, half_depth = profile(up, _UP, _HALF_WIDTH), profile(up, _UP, _HALF_DEPTH)
    y = y - profile(up, _UP, _BACKWARD)
    u, v = (x / half_width) ** 2, (y / half_depth) ** 2
    return np.hypot(x, y) * (1 - 1 / rounded_box(u, v, 0.5))


def rounded_box(u, v, squareness: float):
    """1 on the outline, from squared coordinates in half axes: an ellipse for 0, squarer up to 1."""
    total = u + v + 1e-6
    return np.sqrt(total - squareness * u * v / total)


def ellipsoid(x, y, z, half_axes):
    """Signed distance to an ellipsoid at the origin; exact on its surface, and near its shortest axis."""
    a, b, c = half_axes
    return (np.sqrt((x / a) ** 2 + (y / b) ** 2 + (z / c) ** 2) - 1) * np.minimum(a, b)


def profile(up, heights, values):
    """`values` between `heights`, a plain float for a float, so that float32 images stay float32."""
    found = np.interp(up, heights, values)
    return float(found) if np.ndim(up) == 0 else found.astype(np.float32)


def _smooth_max(a, b, radius):
    """The larger of two distances, the edge where they cross rounded off."""
    return np.maximum(a, b) + np.maximum(radius - np.abs(a - b), 0) ** 2 / (4 * radius)
