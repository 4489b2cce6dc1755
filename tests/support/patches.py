"""Made-up patches of nodules in the layout of `nodule-patches`: bright disks, the larger the more malignant."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lungjax.ct.scan import RATING_NAMES

SIDE_PX = 41


def columns(*, patients: int, seed: int = 0, prefix: str = "MADE-UP") -> dict[str, np.ndarray]:
    """Two nodules a patient, four readers; every fifth nodule is of median 3."""
    rng = np.random.default_rng(seed)
    n = 2 * patients
    radius_px = rng.permutation(np.linspace(2, 14, n))
    grade = np.clip(np.round(radius_px / 2.6), 1, 5).astype(np.int8)
    grade[::5] = 3
    rows, across = np.mgrid[:SIDE_PX, :SIDE_PX] - SIDE_PX // 2
    disks = np.hypot(rows, across) <= radius_px[:, None, None]
    ratings = np.repeat(np.clip(grade, 1, 4)[:, None, None], 4, axis=1) * np.ones((1, 1, 9), np.int8)
    ratings[:, :, -1] = grade[:, None]
    ratings[::3, 3] = 0  # One reader silent.
    who = np.repeat(np.arange(patients), 2)
    return {
        "hu": (-850 + 900 * disks + rng.normal(0, 30, disks.shape)).astype(np.int16),
        "patient_id": np.array([f"{prefix}-{one:03d}" for one in who]),
        "series_uid": np.array([f"1.2.{seed}.{one}" for one in who]),
        "sop_uid": np.array([f"1.2.{seed}.{one}.{row}" for row, one in enumerate(who)]),
        "z_mm": np.arange(n, dtype=np.float64),
        "pixel_spacing_mm": np.linspace(0.6, 0.8, patients)[who],
        "reader_ratings": ratings.astype(np.int8),
        "rating_names": np.array(RATING_NAMES),
    }


def write(path: Path, **options) -> Path:
    np.savez_compressed(path, allow_pickle=True, **columns(**options))
    return path
