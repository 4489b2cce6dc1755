"""The body around the lungs, one slice of HU: skin, fat, muscle, bones, organs, table."""

from __future__ import annotations

import math

import numpy as np

from lungjax.preparation.phantom.anatomy import (
    LUNG_HEIGHT,
    RIB_PITCH,
    VERTEBRA_PITCH,
    Chest,
    cavity_distance,
    ellipsoid,
    profile,
    rounded_box,
)

AIR_HU, FAT_HU, MUSCLE_HU, SKIN_HU, LIVER_HU = -1000.0, -100.0, 50.0, 10.0, 65.0
CORTEX_HU, MARROW_HU = 620.0, 190.0


class Canvas:
    """One slice being painted: tissues laid over one another, each with an edge one pixel wide."""

    def __init__(self, x, y, pixel: float):
        self.x, self.y, self.pixel = x, y, pixel  # (1, columns), (rows, 1), in the reference chest
        self.hu = np.full((y.size, x.size), AIR_HU, np.float32)

    def over(self, distance, hu, where=np.s_[:, :]):
        """Paints `hu` where the signed distance (of the part `where` of the slice) is negative."""
        cover = np.clip(0.5 - distance / self.pixel, 0, 1)
        part = self.hu[where]
        part += cover * (hu - part)

    def near(self, x: float, y: float, reach: float):
        """x, y and the part of the slice within `reach` of a point: small organs cost little."""
        columns = slice(*np.searchsorted(self.x[0], (x - reach, x + reach)))
        rows = slice(*np.searchsorted(self.y[:, 0], (y - reach, y + reach)))
        return self.x[:, columns] - x, self.y[rows] - y, (rows, columns)

    def ellipse(self, x: float, y: float, a: float, b: float, hu: float, turn: float = 0.0):
        """An ellipse of half axes a, b, turned by `turn` radians."""
        u, v, where = self.near(x, y, max(a, b) + 2 * self.pixel)
        if turn:
            c, s = math.cos(turn), math.sin(turn)
            u, v = c * u + s * v, c * v - s * u
        self.over(ellipsoid(u, v, 0.0, (a, b, 1.0)), hu, where)

    def bone(self, x: float, y: float, a: float, b: float, turn: float = 0.0, marrow: float = MARROW_HU):
        """An ellipse of cortex filled with marrow."""
        self.ellipse(x, y, a, b, CORTEX_HU, turn)
        if min(a, b) > 3.5:
            self.ellipse(x, y, a - 2.2, b - 2.2, marrow, turn)


def section(chest: Chest, x_mm: np.ndarray, y_mm: np.ndarray, z_mm: float) -> np.ndarray:
    """HU of one slice as if the lungs were soft tissue; float32 (rows, columns).

    Args:
      chest: whose.
      x_mm, y_mm: (1, columns) and (rows, 1), from the centre of the image.
      z_mm: the slice's position.
    """
    x, y, up = chest.reference(x_mm, y_mm, z_mm)
    canvas = Canvas(x, y, float(x[0, 1] - x[0, 0]))
    cavity = cavity_distance(x, y, up)
    _walls(canvas, chest, cavity, up)
    _shoulders(canvas, up)
    _ribs(canvas, cavity, up)
    canvas.over(np.maximum(cavity, -0.1 * canvas.pixel), 15.0 if up > 0 else -70.0)
    _abdomen(canvas, chest, up)
    _mediastinum(canvas, chest, up)
    _spine(canvas, up)
    return canvas.hu


def _walls(canvas: Canvas, chest: Chest, cavity, up: float):
    """Table, skin, fat and the muscles of the chest wall."""
    x, y = canvas.x, canvas.y
    fat = chest.fat_mm / chest.scale
    shoulder = profile(up, [90, 130, 200, 225, 260], [0, 8, 14, 45, 75])
    half_width = profile(up, [-100, 0, 90, 190], [144, 152, 154, 148]) + fat + shoulder
    middle = profile(up, [0, 90, 190, 240], [20, 20, 28, 38])
    half_depth = profile(up, [0, 90, 190, 240], [124, 124, 117, 105]) + 0.6 * fat
    rho = rounded_box((x / half_width) ** 2, ((y - middle) / half_depth) ** 2, 0.6)
    back = middle + 0.95 * half_depth
    skin = np.maximum((rho - 1) * half_depth, y - back)  # The back lies flat on the table.
    table = np.abs(y - (back + 22 - x * x / 1500))
    canvas.over(table - 9, -930.0)
    canvas.over(np.abs(table - 9) - 1.2, -150.0)
    canvas.over(skin, SKIN_HU)
    canvas.over(skin + 2.5, FAT_HU)
    # Pectorals in front, latissimus at the sides, the long muscles beside the spine.
    angle = np.abs(np.arctan2(x, -y))  # 0 in front, pi at the back
    thick = 15 + 8 * np.exp(-(((angle - 0.75) / 0.4) ** 2)) + 13 * np.exp(-(((angle - 2.1) / 0.6) ** 2))
    canvas.over(np.maximum(np.maximum(cavity - thick - 0.6 * shoulder, skin + 4 + 0.4 * fat), -cavity), MUSCLE_HU)
    for side in (-1, 1):
        canvas.ellipse(side * 29, 112, 28, 19, MUSCLE_HU)


def _shoulders(canvas: Canvas, up: float):
    """Shoulder blades, collar bones, the heads of the arms."""
    for side in (-1, 1):
        if up > 95:
            reach = 42 * min(1.0, (up - 95) / 40)
            blade_x, turn = profile(up, [95, 150, 200, 250], [118, 116, 108, 106]), side * 0.75 + math.pi / 2
            canvas.ellipse(side * blade_x, 76, reach + 8, 13, MUSCLE_HU, turn)
            canvas.bone(side * blade_x, 76, reach, 3.4, turn)
        if up > 208:
            canvas.ellipse(side * 168, 34, 38, 34, MUSCLE_HU)
            canvas.bone(side * 160, 34, 21, 20)
        if 212 < up < 246:
            canvas.bone(side * (40 + 2.2 * (up - 212)), -40 + 0.5 * (up - 212), 32, 6.5, -side * 0.42)


def _ribs(canvas: Canvas, cavity, up: float):
    """Ribs run down from the spine to the front: a slice cuts each side's in slanted pieces."""
    if up > LUNG_HEIGHT + 5:
        return
    angle = np.abs(np.arctan2(canvas.x, canvas.y - 10))  # 0 at the spine, pi in front
    along = (up + 46 * angle) / RIB_PITCH
    across = (np.abs(along - np.round(along)) - 0.21) * 60
    rib = np.maximum(np.abs(cavity - 7) - 3.8, across)
    cartilage = np.maximum(rib, 2.45 - angle)  # In front ribs are cartilage, not bone.
    canvas.over(rib, CORTEX_HU)
    canvas.over(rib + 1.8, MARROW_HU)
    canvas.over(cartilage * 20, 110.0)
    if 60 < up < 205:
        canvas.bone(0, -profile(up, [60, 140, 205], [101, 95, 74]), 19, 7)


def _abdomen(canvas: Canvas, chest: Chest, up: float):
    """Under the diaphragm: liver, spleen, the stomach with its bubble of gas."""
    if up > 110:
        return
    right, left = chest.domes(canvas.x, canvas.y, up)
    canvas.over(left + 3, -80.0)
    canvas.over(right + 2, LIVER_HU)
    if up < 60:
        size = math.sqrt(1 - (max(up, 0.0) / 60) ** 2)
        canvas.ellipse(20, -42, 62 * size, 36 * size, LIVER_HU)
        canvas.ellipse(88, 44, 36 * size, 30 * size, 60.0, 0.5)
        canvas.ellipse(72, -26, 40 * size, 36 * size, 25.0)
        canvas.ellipse(72, -42, 26 * size, 14 * size, AIR_HU)


def _mediastinum(canvas: Canvas, chest: Chest, up: float):
    """Heart, great vessels, trachea and the two main bronchi."""
    blood = chest.blood_hu
    if up < 145:
        heart = chest.heart_distance(canvas.x, canvas.y, up)
        canvas.over(heart + 2, 50.0)
        canvas.over(heart + 10, blood)
    canvas.ellipse(22, 50, 12, 12, blood)
    if 120 < up < 192:
        canvas.ellipse(-14, -16, 15, 15, blood)
        canvas.ellipse(-27, -2, 8, 9, blood)
    if 128 < up < 158:
        canvas.ellipse(22, -12, 27, 12, blood, 0.6)
    if abs(up - 188) < 13:
        canvas.ellipse(4, 16, 42, math.sqrt(13**2 - (up - 188) ** 2) + 1, blood, 1.15)
    if up > 198:
        for x, y, radius in ((-20, -6, 7), (0, -8, 5), (18, 4, 5), (-30, -22, 6)):
            canvas.ellipse(x, y, radius, radius, blood)
    apart = max(0.0, (158 - up) * 1.15)
    if up > 118:
        radius, wall = (8.5, 1.6) if apart == 0 else (6.5, 1.4)
        for side in (-1, 1) if apart else (1,):
            x = side * max(apart, 0.0)
            canvas.ellipse(x, 22, radius + wall + 0.1 * apart, radius + wall, 40.0)
            canvas.ellipse(x, 22, radius + 0.1 * apart, radius, AIR_HU)


def _spine(canvas: Canvas, up: float):
    """A vertebra or the disc between two, the canal, the arch with its processes."""
    phase = up / VERTEBRA_PITCH - math.floor(up / VERTEBRA_PITCH)
    if phase < 0.2:
        canvas.ellipse(0, 79, 17, 14, 95.0)
    else:
        canvas.bone(0, 79, 18, 15)
    if phase > 0.35:
        for side in (-1, 1):
            canvas.bone(side * 20, 101, 20, 5, -side * 0.25)
    canvas.bone(0, 98, 13, 11)
    canvas.ellipse(0, 98, 8.5, 7.5, 25.0)
    canvas.bone(0, 119, 3.6, 14)
