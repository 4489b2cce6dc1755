"""What `lungjax.predict` returns: all that is predicted of one scan."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lungjax import paths
from lungjax.ct.scan import Scan
from lungjax.prediction.diffuse_disease import LungCheck
from lungjax.prediction.lung_rads import LungRads
from lungjax.prediction.operating_point import OperatingPoint
from lungjax.prediction.outputs import folder, report_json
from lungjax.prediction.predicted import PredictedNodule, PredictedPatient

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """All that is predicted of one scan.

    Attributes:
      scan: that was looked at.
      nodules: candidates whose score reaches the threshold, by falling score.
      candidates: the others, likewise; most of them are vessels.
      mask: (slices, rows, columns) uint8: a voxel's value is the `number` of its nodule, 0 for none.
      patient: a probability for the whole patient, or why there is none.
      warnings: sentences that must be known to read the rest.
      refused: one sentence why the scan was not looked at, because it is unlike what the networks were trained on; then
        there are no nodules and no candidates. None otherwise.
      lungs: what was measured of the lungs, and what of it is unusual, as in consolidation, effusion or other diffuse
        disease; the patient's probability is then withheld. None where the scan was refused.
      threshold: the score from which a candidate is a nodule.
      operating_point: where the threshold comes from.
      models: of the `model`, the `candidate_classifier`, the `nodule_classifier` and the `patient_classifier` what is
        known of each, None where none was used.
      made: when, ISO 8601.
    """

    scan: Scan
    nodules: tuple[PredictedNodule, ...]
    candidates: tuple[PredictedNodule, ...]
    mask: np.ndarray
    patient: PredictedPatient
    warnings: tuple[str, ...]
    refused: str | None
    lungs: LungCheck | None
    threshold: float
    operating_point: OperatingPoint
    models: Mapping[str, Mapping[str, Any] | None]
    made: str

    def save(self, out: Path | str) -> Path:
        """Writes what `lungjax predict` writes: the mask as NIfTI, the nodules as CSV, a report as JSON and as an HTML
        page to scroll through, an overview as PNG; and DICOM-SEG and a structured report, if the scan was read from
        DICOM and `lungjax[dicom-seg]` is installed.

        Args:
          out: the folder to make; complete, or not at all.

        Returns:
          `out`.

        Raises:
          InputError: it exists and is not empty.
        """
        out = paths.local(out)
        folder.write(out, self.scan, self.mask, self.to_dict())
        return out

    def to_dict(self) -> dict[str, Any]:
        """What report.json holds, as plain Python values: see `lungjax.prediction.outputs.report_json`."""
        return report_json.as_dict(
            self.scan,
            models=self.models,
            nodules=self.nodules,
            candidates=self.candidates,
            patient=self.patient,
            refused=self.refused,
            lungs=self.lungs,
            warnings=self.warnings,
            operating_point=self.operating_point,
            made=self.made,
        )

    @property
    def lung_rads(self) -> LungRads | None:
        """The Lung-RADS v2022 category of the scan as of a baseline scan: the highest of its nodules', `1` without any.

        A rule on measurements, and not a reading; see `lungjax.prediction.lung_rads`. None where the scan was refused
        or no nodule classifier was used.
        """
        return report_json.assessment(self.nodules, self.models, self.refused).category

    def to_dataframe(self) -> pd.DataFrame:
        """A row for each nodule, with the columns of nodules.csv, not rounded:

        number, centre_slice, centre_row, centre_column, x_mm, y_mm, z_mm, volume_mm3, longest_mm, perpendicular_mm,
        mean_hu, score, malignancy, first_slice, last_slice, mean_mm, fleischner_mm, type, solid_mean_mm, side, zone,
        pleura_mm, lung_rads, and of each of the nine ratings the expected one, as expected_texture, and its standard
        deviation, as deviation_texture; see `PredictedNodule`.
        """
        import pandas as pd

        rows = [report_json.csv_row(dataclasses.asdict(nodule)) for nodule in self.nodules]
        return pd.DataFrame(rows, columns=list(report_json.CSV_COLUMNS))
