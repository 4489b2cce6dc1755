"""Branching vessels of the lungs: trees grown from the hila, drawn slice by slice as strings of balls."""

from __future__ import annotations

import dataclasses

import numpy as np

from lungjax.preparation.phantom.anatomy import LUNG_HEIGHT, Chest

_HILUM = (34.0, 16.0, 128.0)
"""Where the vessels of the left lung enter it, in the reference chest; the right lung's mirror it."""
_TIP_MM = 0.55
_MURRAY = 2.7
"""Radius^2.7 is conserved at a branching (3 by Murray's law; less, as measured in lungs)."""


@dataclasses.dataclass(frozen=True)
class Vessels:
    """Balls on the vessels' centre lines, sorted by z: (balls, 4) float32 x, y, z, radius, all mm."""

    balls_mm: np.ndarray

    def cover(self, shape: tuple[int, int], pixel_mm: float, z_mm: float, thickness_mm: float) -> np.ndarray:
        """How much of each pixel is vessel: float32 (rows, columns) in [0, 1].

        A vessel thinner than a pixel or slice covers only a part of it.
        """
        cover = np.zeros((shape[0], shape[1]), np.float32)
        reach = thickness_mm / 2 + 8.0
        z = self.balls_mm[:, 2]
        x, y, z, radius = self.balls_mm[np.searchsorted(z, z_mm - reach) : np.searchsorted(z, z_mm + reach)].T
        above = np.maximum(np.abs(z - z_mm) - thickness_mm / 4, 0)
        cut = np.flatnonzero(above < radius)
        x, y = x[cut] / pixel_mm + (shape[1] - 1) / 2, y[cut] / pixel_mm + (shape[0] - 1) / 2
        radius = np.sqrt(radius[cut] ** 2 - above[cut] ** 2) / pixel_mm
        for low, high in ((0, 0.8), (0.8, 2.5), (2.5, 6), (6, np.inf)):  # Small balls on small patches.
            some = (radius > low) & (radius <= high)
            if some.any():
                _splat(cover, x[some], y[some], radius[some])
        return cover


def _splat(cover: np.ndarray, x_px: np.ndarray, y_px: np.ndarray, radius_px: np.ndarray):
    """Draws discs with soft edges into `cover`; where discs meet, the larger cover counts."""
    half = int(np.ceil(radius_px.max() + 0.6))
    steps = np.arange(-half, half + 1)
    columns, rows = np.rint(x_px).astype(int)[:, None] + steps, np.rint(y_px).astype(int)[:, None] + steps
    inside = (rows.min(1) >= 0) & (columns.min(1) >= 0)
    inside &= (rows.max(1) < cover.shape[0]) & (columns.max(1) < cover.shape[1])
    columns, rows, radius_px = columns[inside], rows[inside], radius_px[inside, None, None]
    distance = np.hypot(
        (rows - y_px[inside, None])[:, :, None], (columns - x_px[inside, None])[:, None, :]
    )  # (balls, patch, patch)
    thin = np.minimum(radius_px * 2, 1)
    disc = (thin * np.clip(np.maximum(radius_px, 0.5) + 0.5 - distance, 0, 1)).astype(np.float32)
    np.maximum.at(cover.reshape(-1), rows[:, :, None] * cover.shape[1] + columns[:, None, :], disc)


def grow(chest: Chest, rng: np.random.Generator, *, tips: int = 420) -> Vessels:
    """An artery and a vein tree with `tips` ends in each lung."""
    strings = []
    for side in (-1, 1):
        for _ in range(2):
            ends = _points_in_lung(chest, rng, side, tips)
            root = _to_scan(chest, np.array([[side * _HILUM[0], *_HILUM[1:]]]))
            root += rng.normal(0, 4, size=3)
            strings.append(_tree(np.vstack([root, ends]), rng))
    balls = np.vstack(strings).astype(np.float32)
    return Vessels(balls[np.argsort(balls[:, 2], kind="stable")])


def _to_scan(chest: Chest, points: np.ndarray) -> np.ndarray:
    low, high = chest.lungs_mm
    x, y, up = points.T
    return np.stack(
        [
            x * chest.scale + chest.centre_mm[0],
            y * chest.scale + chest.centre_mm[1],
            low + up * (high - low) / LUNG_HEIGHT,
        ],
        axis=1,
    )


def _points_in_lung(chest: Chest, rng: np.random.Generator, side: int, count: int) -> np.ndarray:
    """(up to count, 3) random points of one lung, mm; vessels end 4 mm before the pleura."""
    box = rng.uniform((5, -95, 0), (135, 95, LUNG_HEIGHT), size=(count * 5, 3)) * (side, 1, 1)
    points = _to_scan(chest, box)
    return points[chest.lung_distance_mm(*points.T) < -4][:count]


def _tree(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Balls (n, 4) of a tree through points (m, 3), rooted at the first.

    Point by point, nearest to the root first, each joins the earlier point that makes the way short, both
    from there and all the way from the root: twigs leave branches at an angle, as vessels do.
    """
    order = np.argsort(np.linalg.norm(points - points[0], axis=1), kind="stable")
    points = points[order]
    parent, way = np.zeros(len(points), int), np.zeros(len(points))
    for k in range(1, len(points)):
        step = np.linalg.norm(points[:k] - points[k], axis=1)
        parent[k] = np.argmin(step + 0.35 * way[:k])
        way[k] = way[parent[k]] + step[parent[k]]
    flow = np.full(len(points), _TIP_MM**_MURRAY)
    for k in range(len(points) - 1, 0, -1):
        flow[parent[k]] += flow[k]
    radius = np.minimum(flow ** (1 / _MURRAY), 4.5)
    strings = [
        _string(points[parent[k]], points[k], float(radius[parent[k]]), float(radius[k]), rng)
        for k in range(1, len(points))
    ]
    return np.vstack(strings)


def _string(start, end, start_radius: float, end_radius: float, rng: np.random.Generator) -> np.ndarray:
    """Balls along a slightly bent way from start to end, close enough to look like a tube."""
    length = np.linalg.norm(end - start)
    along = np.linspace(0, 1, max(2, int(length / max(0.5, 0.45 * end_radius))))[:, None]
    bend = rng.normal(0, 0.07 * length, size=3) * np.sin(np.pi * along)
    radius = end_radius + (min(start_radius, 1.3 * end_radius) - end_radius) * (1 - along)
    return np.hstack([start + (end - start) * along + bend, radius])
