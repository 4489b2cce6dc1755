"""What is predicted of one scan: its nodules, and the patient's probability."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from lungjax.prediction.location import Side, Zone
from lungjax.prediction.lung_rads import LungRads
from lungjax.prediction.nodule_type import NoduleType
from lungjax.prediction.prevalence import Prevalence


@dataclasses.dataclass(frozen=True)
class PredictedRating:
    """How LIDC-IDRI's readers would rate one trait of a nodule.

    Attributes:
      expected: the mean of their ratings.
      standard_deviation: of a reader's rating, and so also of how unsure the nodule classifier is; None where it was
        exported and does not tell.
      probabilities: that a reader gives 1, 2 and so on up to the highest rating, of sum 1; empty likewise.
    """

    expected: float
    standard_deviation: float | None = None
    probabilities: tuple[float, ...] = ()


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
      score: from 0 to 1: the candidate classifier's probability that it is a nodule; without one, how sure the
        segmenter is of its voxels, which ranks candidates and is no probability.
      malignancy: the probability that LIDC-IDRI's readers would call it malignant; None without a nodule classifier.
      slices: the first and the last in which it lies.
      mean_mm: the mean of `longest_mm` and `perpendicular_mm`.
      fleischner_mm: that to the nearest millimetre, as the Fleischner Society reports it (MacMahon et al. 2017).
      type: `solid`, `part-solid` or `ground glass`, by the expected rating of texture (see
        `lungjax.prediction.nodule_type`); None without a nodule classifier.
      solid_mean_mm: of a part-solid nodule the mean diameter of its solid part, of voxels from -300 HU on (Scholten et
        al. 2015; see `lungjax.prediction.measure`), 0 where it has none; None of all others.
      ratings: by the names in `lungjax.ct.scan.RATING_NAMES`; empty without a nodule classifier.
      side: the patient's `left` or `right`; None where the source has lost the scan's orientation, or one lung alone
        is shown and not which.
      zone: `upper`, `middle` or `lower`, the third of that lung's height in which its centre lies, and no lobe; None
        likewise.
      pleura_mm: from its border to the nearest border of the lungs; 0 where it touches it. Fissures are not looked for.
        None where no lungs were found.
      lung_rads: the Lung-RADS v2022 category that it would have in a baseline scan, by rule and not by a reading (see
        `lungjax.prediction.lung_rads`); None without a nodule classifier.
      lung_rads_reason: what the category follows from, or why there is none.
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
    mean_mm: float
    fleischner_mm: int
    type: NoduleType | None
    solid_mean_mm: float | None
    ratings: Mapping[str, PredictedRating]
    side: Side | None
    zone: Zone | None
    pleura_mm: float | None
    lung_rads: LungRads | None
    lung_rads_reason: str


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
