"""`lungjax gather`: the nodules of `predict` in LIDC's scans, as patches to train the patient classifier on."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lungjax import unfinished
from lungjax.ct.scan import RATING_NAMES, Nodule
from lungjax.ct.source import Entry
from lungjax.data import bags, nodules
from lungjax.errors import Fault, InputError, NothingDone
from lungjax.prediction import run
from lungjax.preparation import prediction_rows, sources
from lungjax.train import workdir

_FORMATS = ("lidc", "luna16")
"""Formats of whole scans with the outlines and ratings of all readers."""
_MALIGNANCY = RATING_NAMES.index("malignancy")


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a call of `gather` has written.

    Attributes:
      patches, labels: the files.
      nodules, rated: the number of patches, and how many of them show a nodule that readers rated.
      label_counts: the number of patients with each label, in the order malignant, benign, unknown.
      without: the number of patients without predicted nodules, who have a label but no patch.
      left_out: scans that are not in the files, with the reason.
    """

    patches: Path
    labels: Path
    nodules: int
    rated: int
    label_counts: tuple[int, int, int]
    without: int
    left_out: dict[str, str]

    def text(self) -> str:
        """For the screen."""
        malignant, benign, unknown = self.label_counts
        lines = [
            f"{self.patches}: {self.nodules} predicted nodules, {self.rated} of them rated by readers",
            f"{self.labels}: {malignant} patients with a malignant nodule, {benign} with benign ones or none, "
            f"{unknown} unknown; {self.without} of them without predicted nodules",
        ]
        return "\n".join([*lines, *(f"left out: {key}: {reason}" for key, reason in self.left_out.items())])


def gather(predicted: Path, *, source: Path, out: Path) -> Summary:
    """Writes the predicted nodules of every scan as patches, and a label for each patient.

    From each scan it takes the nodules that `predict` found, at most `prediction_rows.MOST_NODULES`. A nodule
    that shares voxels with a nodule of the readers gets their outlines and ratings; all others have none. A patient is
    malignant if the readers' median malignancy of any nodule is above 3, and benign if it is below 3 for all nodules or
    there is no nodule.

    Args:
      predicted: the output of `lungjax predict` for `source`.
      source: LIDC-IDRI's DICOM in any tree, or LUNA16's MetaImage.
      out: the `.npz` to write, in the format `nodule-patches`; the labels are written next to it with the suffix
        `.csv`, in the format of `config.data.labels`.

    Raises:
      InputError: there is no such source, none of its scans was predicted, or there are no nodules.
    """
    if out.suffix != ".npz":
        raise InputError(f"{out} must end in .npz, the format that is written.")
    name = sources.format_of(source, "auto")
    if name not in _FORMATS:
        raise InputError(f"{source} has the format {name}, which has no whole scans with ratings; give LIDC's DICOM.")
    entries, faulty = sources.find(name, source)
    left_out = {line.key: f"{line.name}: {line.message}" for line in faulty}
    rows: list[prediction_rows.Row] = []
    scan_labels: dict[str, list[float]] = {}
    for entry in tqdm(entries, unit="scan", disable=None if len(entries) > 1 else True):
        label = np.nan  # If the scan cannot be read; the patient's, too, unless another scan has a malignant nodule.
        try:
            scan = sources.FORMATS[name].read(entry)
            label = malignancy_label(scan.nodules)
            rows += prediction_rows.rows(scan, _result_folder(predicted, entry))
        except Fault as fault:
            left_out[entry.key] = f"{fault.name}: {fault.message}"
        scan_labels.setdefault(entry.patient_id, []).append(label)
    if not rows:
        reasons = "; ".join(f"{key}: {reason}" for key, reason in left_out.items())
        kind = NothingDone if left_out else InputError
        raise kind(f"{predicted} has no nodules in the scans of {source}{': ' if reasons else ''}{reasons}.")
    return _write(rows, {patient: _patient_label(labels) for patient, labels in scan_labels.items()}, out, left_out)


def malignancy_label(scan_nodules: Sequence[Nodule]) -> float:
    """A scan's label: 1 where the readers' median malignancy of any nodule is above 3, 0 where it is below 3 for all
    nodules or there is none, NaN otherwise."""
    medians = [np.median(ratings) if (ratings := _malignancy(nodule)) else np.nan for nodule in scan_nodules]
    label = nodules.label_of(np.array(medians))
    return 1.0 if (label == 1).any() else 0.0 if (label == 0).all() else np.nan


def _malignancy(nodule: Nodule) -> list[int]:
    return [reading.ratings[_MALIGNANCY] for reading in nodule.readings if reading.ratings[_MALIGNANCY]]


def _patient_label(scan_labels: Sequence[float]) -> float:
    """A patient's label from the labels of the scans."""
    return 1.0 if 1.0 in scan_labels else 0.0 if all(label == 0 for label in scan_labels) else np.nan


def _result_folder(predicted: Path, entry: Entry) -> Path:
    """The folder with predict's result for a scan."""
    folder = predicted / run.file_name(entry.key)
    return folder if folder.is_dir() else predicted


def _write(
    rows: Sequence[prediction_rows.Row], patient_labels: dict[str, float], out: Path, left_out: dict[str, str]
) -> Summary:
    columns = {
        field.name: np.array([getattr(row, field.name) for row in rows])
        for field in dataclasses.fields(prediction_rows.Row)
    }
    with unfinished.beside(out) as holder:
        temporary = holder / out.name
        np.savez_compressed(temporary, allow_pickle=False, rating_names=np.array(RATING_NAMES), **columns)
        temporary.replace(out)
    labels = out.with_suffix(".csv")
    workdir.write_text(labels, _csv(patient_labels))
    values = np.array(list(patient_labels.values()))
    return Summary(
        patches=out,
        labels=labels,
        nodules=len(rows),
        rated=int((columns["reader_ratings"] > 0).any(axis=(1, 2)).sum()),
        label_counts=(int((values == 1).sum()), int((values == 0).sum()), int(np.isnan(values).sum())),
        without=len(patient_labels.keys() - {row.patient_id for row in rows}),
        left_out=left_out,
    )


def _csv(patient_labels: dict[str, float]) -> str:
    """`patient_id,label`, with the codes of `lungjax.data.bags.CODES`."""
    code = {value: name for name, value in reversed(bags.CODES.items()) if value == value}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["patient_id", "label"])
    writer.writerows([patient, code.get(value, "0")] for patient, value in sorted(patient_labels.items()))
    return text.getvalue()
