"""What is predicted of one scan: its nodules, and the patient's probability."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from lungjax.prediction.prevalence import Prevalence


@dataclasses.dataclass(frozen=True)
class PredictedNodule:
    """A nodule, or a candidate whose score is below the threshold.

    Attributes:
      number: from 1, by falling score; of a nodule the value of its voxels in the mask. Candidates are numbered on.
      centre_voxel: (slice, row, column), the mean of its voxels, counted from 0; slice 0 is the lowest.
      centre_mm: (x, y, z), the same point in DICOM's patient coordinates: mm towards the left, the back and the head.
      volume_mm3: of its voxels.
      longest_mm, perpendicular_mm: RECIST 1.1 (Eisenhauer et al. 2009): its longest diameter in any slice, and the
        longest at right angles to that.
      mean_hu: of its voxels.
      score: from 0 to 1; how sure the segmenter is of its voxels. It ranks candidates, and is no probability.
      malignancy: the probability that LIDC-IDRI's readers would call it malignant; None without a nodule classifier.
      slices: the first and the last in which it lies.
    """

    number: int
    centre_voxel: tuple[float, float, float]
    centre_mm: tuple[float, float, float]
    volume_mm3: float
    longest_mm: float
    perpendicular_mm: float
    mean_hu: float
    score: float
    malignancy: float | None
    slices: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class PredictedPatient:
    """A probability for the whole patient, from the nodules of one scan.

    Attributes:
      probability: of what `meaning` says; None where there is none.
      reason: one sentence why there is none, else None.
      meaning: one sentence: what the probability is one of; None where there is none.
      limits: sentences that must be known to read it.
      attention: by the number of a nodule, its share in the probability; they sum to 1.
      calibration: the `slope` and `offset` on the logit that made the probability, and how many patients they were
        fitted on; None where it was not calibrated.
      prevalence: for which share of positive patients it holds; None without a patient classifier.
    """

    probability: float | None
    reason: str | None
    meaning: str | None = None
    limits: tuple[str, ...] = ()
    attention: Mapping[int, float] = dataclasses.field(default_factory=dict)
    calibration: Mapping[str, float] | None = None
    prevalence: Prevalence | None = None

    @classmethod
    def without(cls, reason: str, *, prevalence: Prevalence | None = None) -> PredictedPatient:
        """Of whom there is no probability, and why; `prevalence` is that which was asked for."""
        return cls(None, reason, prevalence=prevalence)
