"""Summarizes the contents of a data set and a run of `prepare` in a few lines."""

from __future__ import annotations

import collections
import dataclasses
import json
from pathlib import Path

from lungjax.ct import faults
from lungjax.data import manifest, splits
from lungjax.errors import counted


@dataclasses.dataclass(frozen=True)
class Summary:
    """The contents of a data set, and what this run did.

    Attributes:
      out: the folder.
      scans, slices: their numbers in the data set.
      rated: the number of scans with a nodule whose readers' ratings are known.
      patients: the number in each split.
      quarantined: the number of series and single files for each fault.
      skipped: the number of series for each note; these are not faults, see `lungjax.ct.faults`.
      was_complete: whether the data set existed already and was left unchanged.
      new_slices: slices read in this run; the others were read in an earlier run.
      seconds: duration of this run.
    """

    out: Path
    scans: int
    slices: int
    rated: int
    patients: dict[str, int]
    quarantined: dict[str, int]
    skipped: dict[str, int]
    was_complete: bool
    new_slices: int
    seconds: float

    def text(self) -> str:
        """A few lines for the screen."""
        splits_text = ", ".join(f"{count} {split}" for split, count in self.patients.items())
        patients = f"{counted(sum(self.patients.values()), 'patient')} ({splits_text})"
        lines = [f"{self.out}: {counted(self.scans, 'scan')}, {counted(self.slices, 'slice')}, {patients}"]
        lines.append(f"readers' ratings of nodules are known in {self.rated} of the scans")
        for label, counts in (("quarantined", self.quarantined), ("skipped", self.skipped)):
            if counts:
                reasons = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
                lines.append(f"{label}: {sum(counts.values())} ({reasons}); see {self.out / manifest.QUARANTINE}")
        if self.was_complete:
            lines.append("It is complete already and was left unchanged; --overwrite replaces it.")
        else:
            rate = self.new_slices / max(self.seconds, 1e-9)
            lines.append(f"{self.new_slices} slices read in {self.seconds:.1f} s, {rate:.0f} slices/s")
        return "\n".join(lines)


def summarize(out: Path, *, was_complete: bool, new_slices: int, seconds: float) -> Summary:
    """The summary of a finished data set; the keyword arguments as in `Summary`."""
    contents = manifest.read_manifest(out)
    patients = collections.Counter(contents["split"]["patients"].values())
    index = manifest.read_index(out)
    lines = (out / manifest.QUARANTINE).read_text().splitlines()
    reasons = collections.Counter(json.loads(line)["name"] for line in lines)
    return Summary(
        out=out,
        scans=contents["counts"]["scans"],
        slices=contents["counts"]["slices"],
        rated=index.loc[index["malignancy_median"].notna(), "series_uid"].nunique(),
        patients={split: patients[split] for split in splits.SPLITS},
        quarantined={name: count for name, count in reasons.items() if name not in faults.NOTES},
        skipped={name: count for name, count in reasons.items() if name in faults.NOTES},
        was_complete=was_complete,
        new_slices=new_slices,
        seconds=seconds,
    )
