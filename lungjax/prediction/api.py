"""A trained segmenter in three lines of Python: `lungjax.load`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lungjax.ct import hounsfield
from lungjax.ct.scan import Scan
from lungjax.errors import InputError
from lungjax.prediction import detection
from lungjax.prediction.sliding_window import Segmenter
from lungjax.train.trained import open_trained


class Model:
    """A segmenter that is given NumPy volumes; compiled once, at the first.

    Args:
      path: a run's workdir or an exported folder.
    """

    def __init__(self, path: Path):
        self._trained = open_trained(path)
        self._segmenter = Segmenter(self._trained)

    def detect(self, hu: np.ndarray, *, spacing_mm: tuple[float, float, float]) -> detection.Detection:
        """Nodules of a scan, measured, and the ranked rest; its `refused` says why nothing was looked for.

        Args:
          hu: (slices, rows, columns) Hounsfield units of a chest, from the feet to the head, from the front to the
            back; any dtype.
          spacing_mm: (slice, row, column) distance between voxel centres.

        Raises:
          InputError: `hu` is no volume of finite numbers that int16 can hold.
        """
        values = np.asarray(hu)
        if values.ndim != 3:
            raise InputError(f"hu has shape {values.shape}; it must be (slices, rows, columns).")
        if not (np.abs(values).max() < 32767.5):  # False of NaN, too.
            raise InputError("hu holds NaN, or numbers that are no Hounsfield units.")
        voxels = np.rint(values).astype(np.int16)
        scan = Scan(
            patient_id="",
            study_uid="",
            series_uid="",
            voxels=voxels,
            intensity="hu",
            z_mm=spacing_mm[0] * np.arange(len(voxels)),
            spacing_mm=spacing_mm,
            sop_uids=("",) * len(voxels),
            padding_hu=hounsfield.padding(voxels, None),
            nodules=(),
            affine_lps=np.diag([*spacing_mm[::-1], 1.0]),
        )
        return detection.detect(scan, self._trained, self._segmenter)

    def mask(self, hu: np.ndarray, *, spacing_mm: tuple[float, float, float]) -> np.ndarray:
        """uint8 of the shape of `hu`: 0, or the number of the nodule, the most certain being 1.

        Args and raises as `detect`; and InputError where the scan is refused.
        """
        found = self.detect(hu, spacing_mm=spacing_mm)
        if found.refused is not None:
            raise InputError(found.refused)
        return found.mask
