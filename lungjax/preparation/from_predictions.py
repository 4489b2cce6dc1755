"""`lungjax gather`: what predict found in LIDC's scans, as the patches that a patient's answer is learnt from."""

from __future__ import annotations

import csv
import dataclasses
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lungjax.ct.scan import RATING_NAMES, Nodule
from lungjax.ct.source import Entry
from lungjax.data import bags, nodules
from lungjax.errors import Fault, InputError
from lungjax.prediction import run
from lungjax.preparation import prediction_rows, sources
from lungjax.train import workdir

_FORMATS = ("lidc", "luna16")
"""Whole scans with all that their readers outlined and rated."""
_MALIGNANCY = RATING_NAMES.index("malignancy")


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a call has done.

    Attributes:
      patches, labels: the files.
      findings, rated: patches, and how many of them show a nodule that readers rated.
      answers: of each label how many patients have it, in the order malignant, benign, unknown.
      without: patients of whom nothing was found, so that they have a label and no patch.
      left_out: scans that are not in the files, and why.
    """

    patches: Path
    labels: Path
    findings: int
    rated: int
    answers: tuple[int, int, int]
    without: int
    left_out: dict[str, str]

    def text(self) -> str:
        """For the screen."""
        malignant, benign, unknown = self.answers
        lines = [
            f"{self.patches}: {self.findings} findings, {self.rated} of them nodules that readers rated",
            f"{self.labels}: {malignant} patients with a malignant nodule, {benign} with benign ones or none, "
            f"{unknown} unknown; of {self.without} of them nothing was found",
        ]
        return "\n".join([*lines, *(f"left out: {key}: {why}" for key, why in self.left_out.items())])


def gather(predicted: Path, *, source: Path, out: Path) -> Summary:
    """Writes the findings of every scan as patches, and a label for each patient.

    Of each scan those findings are taken that predict calls nodules, `gathered.MOST` at most. One that shares voxels
    with a nodule of the readers has their outlines and ratings, any other is nobody's. A patient is malignant whose
    readers gave any nodule a median of malignancy above 3, benign whose nodules are all below, or who has none.

    Args:
      predicted: what `lungjax predict` wrote of `source`.
      source: LIDC-IDRI's DICOM in any tree, or LUNA16's MetaImage.
      out: the `.npz` to write, of the format `nodule-patches`; beside it, with the suffix `.csv`, the labels, as
        `config.data.labels` takes them.

    Raises:
      InputError: no such source, no scan of it that was predicted, or nothing was found in any.
    """
    if out.suffix != ".npz":
        raise InputError(f"{out} must end in .npz, for that is what is written.")
    name = sources.format_of(source, "auto")
    if name not in _FORMATS:
        raise InputError(f"{source} has the format {name}, which has no whole scans with ratings; give LIDC's DICOM.")
    entries, faulty = sources.find(name, source)
    left_out = {one.key: f"{one.name}: {one.message}" for one in faulty}
    rows: list[prediction_rows.Row] = []
    answers: dict[str, list[float]] = {}
    for entry in tqdm(entries, unit="scan", disable=None if len(entries) > 1 else True):
        known = np.nan  # Of a scan that cannot be read, and so of a patient who has no malignant nodule in another.
        try:
            scan = sources.FORMATS[name].read(entry)
            known = answer(scan.nodules)
            rows += prediction_rows.rows(scan, _folder(predicted, entry))
        except Fault as fault:
            left_out[entry.key] = f"{fault.name}: {fault.message}"
        answers.setdefault(entry.patient_id, []).append(known)
    if not rows:
        told = "; ".join(f"{key}: {why}" for key, why in left_out.items())
        raise InputError(f"{predicted}: nothing was found in the scans of {source}{': ' if told else ''}{told}.")
    return _write(rows, {patient: _of_patient(each) for patient, each in answers.items()}, out, left_out)


def answer(found: Sequence[Nodule]) -> float:
    """1 where the readers' median of malignancy of any of a scan's nodules is above 3, 0 where each is below or there
    is none, NaN otherwise."""
    medians = [np.median(given) if (given := _malignancy(one)) else np.nan for one in found]
    label = nodules.label_of(np.array(medians))
    return 1.0 if (label == 1).any() else 0.0 if (label == 0).all() else np.nan


def _malignancy(nodule: Nodule) -> list[int]:
    return [one.ratings[_MALIGNANCY] for one in nodule.readings if one.ratings[_MALIGNANCY]]


def _of_patient(scans: Sequence[float]) -> float:
    """Of the answers of a patient's scans."""
    return 1.0 if 1.0 in scans else 0.0 if all(one == 0 for one in scans) else np.nan


def _folder(predicted: Path, entry: Entry) -> Path:
    """Where predict's result for a scan lies."""
    own = predicted / run.file_name(entry.key)
    return own if own.is_dir() else predicted


def _write(
    rows: Sequence[prediction_rows.Row], answers: dict[str, float], out: Path, left_out: dict[str, str]
) -> Summary:
    workdir.make(out.parent, option="--out")
    columns = {
        field.name: np.array([getattr(row, field.name) for row in rows])
        for field in dataclasses.fields(prediction_rows.Row)
    }
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as holder:
        temporary = Path(holder) / out.name
        np.savez_compressed(temporary, allow_pickle=False, rating_names=np.array(RATING_NAMES), **columns)
        temporary.replace(out)
    labels = out.with_suffix(".csv")
    workdir.write_text(labels, _csv(answers))
    kinds = np.array(list(answers.values()))
    return Summary(
        patches=out,
        labels=labels,
        findings=len(rows),
        rated=int((columns["reader_ratings"] > 0).any(axis=(1, 2)).sum()),
        answers=(int((kinds == 1).sum()), int((kinds == 0).sum()), int(np.isnan(kinds).sum())),
        without=len(answers.keys() - {row.patient_id for row in rows}),
        left_out=left_out,
    )


def _csv(answers: dict[str, float]) -> str:
    """`patient_id,label`, by the codes of `lungjax.data.bags.CODES`."""
    code = {value: name for name, value in reversed(bags.CODES.items()) if value == value}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["patient_id", "label"])
    writer.writerows([patient, code.get(value, "0")] for patient, value in sorted(answers.items()))
    return text.getvalue()
