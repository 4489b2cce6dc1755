"""What a data set holds, and what a run of `prepare` did for it, in a few lines."""

from __future__ import annotations

import collections
import dataclasses
import json
from pathlib import Path

from lungjax.ct import faults
from lungjax.data import manifest, splits


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a data set holds, and what this run did for it.

    Attributes:
      out: the folder.
      scans, slices: in the data set.
      rated: scans with a nodule whose readers' ratings are known.
      patients: how many in each split.
      quarantined: how many series and single files for each fault.
      passed_over: how many series for each note, which are no faults: see `lungjax.ct.faults`.
      was_complete: it was there already and was left alone.
      new_slices: slices read in this run; others come from a run before it.
      seconds: this run's time.
    """

    out: Path
    scans: int
    slices: int
    rated: int
    patients: dict[str, int]
    quarantined: dict[str, int]
    passed_over: dict[str, int]
    was_complete: bool
    new_slices: int
    seconds: float

    def text(self) -> str:
        """A few lines for a person."""
        each = ", ".join(f"{count} {split}" for split, count in self.patients.items())
        patients = f"{sum(self.patients.values())} patients ({each})"
        lines = [f"{self.out}: {self.scans} scans, {self.slices} slices, {patients}"]
        lines.append(f"readers' ratings of nodules are known in {self.rated} of the scans")
        for what, counts in (("quarantined", self.quarantined), ("passed over", self.passed_over)):
            if counts:
                reasons = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
                lines.append(f"{what}: {sum(counts.values())} ({reasons}); see {self.out / manifest.QUARANTINE}")
        if self.was_complete:
            lines.append("It is complete already and was left alone; --overwrite makes it anew.")
        else:
            rate = self.new_slices / max(self.seconds, 1e-9)
            lines.append(f"{self.new_slices} slices read in {self.seconds:.1f} s, {rate:.0f} slices/s")
        return "\n".join(lines)


def of(out: Path, *, was_complete: bool, new_slices: int, seconds: float) -> Summary:
    """The summary of a finished data set; the keyword arguments as in `Summary`."""
    described = manifest.read_manifest(out)
    patients = collections.Counter(described["split"]["patients"].values())
    index = manifest.read_index(out)
    lines = (out / manifest.QUARANTINE).read_text().splitlines()
    reasons = collections.Counter(json.loads(line)["name"] for line in lines)
    return Summary(
        out=out,
        scans=described["counts"]["scans"],
        slices=described["counts"]["slices"],
        rated=index.loc[index["malignancy_median"].notna(), "series_uid"].nunique(),
        patients={split: patients[split] for split in splits.SPLITS},
        quarantined={name: count for name, count in reasons.items() if name not in faults.NOTES},
        passed_over={name: count for name, count in reasons.items() if name in faults.NOTES},
        was_complete=was_complete,
        new_slices=new_slices,
        seconds=seconds,
    )
