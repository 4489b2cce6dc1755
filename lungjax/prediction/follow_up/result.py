"""What `lungjax.compare` returns: the nodules of two scans of a patient, matched, and how each has grown."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lungjax import paths
from lungjax.prediction.follow_up.compared import ComparedScan, MatchedNodule, UnmatchedNodule
from lungjax.prediction.outputs import follow_up_folder, follow_up_json

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True, eq=False)
class FollowUp:
    """Two scans of a patient, compared.

    Attributes:
      first, second: the earlier and the later scan; where their dates are not known, as they were given.
      days: between them; None where that is not known, and then a `no_days_reason`.
      no_days_reason: one sentence why there is no doubling time.
      failed: one sentence why no nodules were matched; then the lists are empty. None otherwise.
      lung_dice: Dice of the lungs after registration, where both scans show them; None where it failed.
      affine_lps: (4, 4) float64, the affine part of the registration, from mm in the first scan to mm in the second.
      spline: whether a B-spline refined it.
      matched: nodules of both scans, by their number in the first.
      new: nodules of the second scan alone, whose place the first one shows.
      gone: nodules of the first scan alone, whose place the second one shows.
      not_shown: nodules of one scan whose place the other one does not show.
      warnings: sentences that must be known to read the rest.
      made: when, ISO 8601.
    """

    first: ComparedScan
    second: ComparedScan
    days: int | None
    no_days_reason: str | None
    failed: str | None
    lung_dice: float | None
    affine_lps: np.ndarray | None
    spline: bool
    matched: tuple[MatchedNodule, ...]
    new: tuple[UnmatchedNodule, ...]
    gone: tuple[UnmatchedNodule, ...]
    not_shown: tuple[UnmatchedNodule, ...]
    warnings: tuple[str, ...]
    made: str

    def save(self, out: Path | str) -> Path:
        """Writes follow-up.json, follow-up.csv and the page follow-up.html; follow-up.json last, once all is there.

        Args:
          out: the folder, which is made unless it is there.

        Returns:
          `out`.

        Raises:
          InputError: it holds one of these files already.
        """
        out = paths.local(out)
        follow_up_folder.write(out, self.to_dict(), self.first, self.second)
        return out

    def to_dict(self) -> dict[str, Any]:
        """What follow-up.json holds, as plain Python values: see `lungjax.prediction.outputs.follow_up_json`."""
        return follow_up_json.as_dict(**{field.name: getattr(self, field.name) for field in dataclasses.fields(self)})

    def to_dataframe(self) -> pd.DataFrame:
        """A row for each nodule, with the columns of follow-up.csv:

        status, first_number, second_number, distance_mm, first_volume_mm3, second_volume_mm3, first_longest_mm,
        second_longest_mm, growth_percent, growth_low_percent, growth_high_percent, change, doubling_days,
        doubling_low_days, doubling_high_days, candidate.
        """
        import pandas as pd

        return pd.DataFrame(follow_up_json.rows(self.to_dict()), columns=list(follow_up_json.CSV_COLUMNS))
