"""`lungjax gather`: what predict found in LIDC's scans, as the patches that a patient's answer is learnt from."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lungjax.data import bags, crop, nodules
from lungjax.deploy import diameters, patches, predict, truth
from lungjax.lidc import sources
from lungjax.lidc.formats import nifti1, volume
from lungjax.lidc.formats.entry import Entry
from lungjax.lidc.scan import RATING_NAMES, READERS, Fault, InputError, Nodule, Scan
from lungjax.train import workdir

MOST = 8
"""Findings of a scan, those of the highest score: as many as `configs/diagnose.py` looks at."""
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


@dataclasses.dataclass(frozen=True, eq=False)
class _Row:
    """A finding: its patch, and what readers said of the nodule that it shares most voxels with.

    The names are those of the file; not the scan itself, for a thousand of them would fill the memory.
    """

    patient_id: str
    series_uid: str
    sop_uid: str
    z_mm: float
    pixel_spacing_mm: float
    hu: np.ndarray  # (SIDE_PX, SIDE_PX)
    reader_ratings: np.ndarray  # (READERS, 9)
    reader_outlines: np.ndarray  # (SIDE_PX, SIDE_PX), a bit a reader


def gather(predicted: Path, *, source: Path, out: Path) -> Summary:
    """Writes the findings of every scan as patches, and a label for each patient.

    Of each scan those findings are taken that predict calls nodules, `MOST` at most. One that shares voxels with a
    nodule of the readers has their outlines and ratings, any other is nobody's. A patient is malignant whose readers
    gave any nodule a median of malignancy above 3, benign whose nodules are all below, or who has none.

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
    rows: list[_Row] = []
    answers: dict[str, list[float]] = {}
    for entry in tqdm(entries, unit="scan", disable=None if len(entries) > 1 else True):
        known = np.nan  # Of a scan that cannot be read, and so of a patient who has no malignant nodule in another.
        try:
            scan = sources.FORMATS[name].read(entry)
            known = answer(scan.nodules)
            rows += _rows(scan, _folder(predicted, entry))
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
    own = predicted / predict.file_name(entry.key)
    return own if own.is_dir() else predicted


def _rows(scan: Scan, folder: Path) -> list[_Row]:
    """Of the findings of one scan.

    Raises:
      Fault: `not_predicted`, or the mask cannot be read.
    """
    try:
        report = json.loads((folder / predict.REPORT).read_text())
        series_uid, refused, count = report["scan"]["series_uid"], report["refused"], len(report["nodules"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Fault("not_predicted", f"{folder} holds no report of it ({error}); run lungjax predict first") from error
    if series_uid != scan.series_uid:
        raise Fault("not_predicted", f"{folder} is of {series_uid}; run lungjax predict on this scan, too")
    if refused:
        raise Fault("refused", refused)
    mask = _mask(folder / "mask.nii.gz", scan)
    found = []
    for number in range(1, min(count, MOST) + 1):
        voxels = np.argwhere(mask == number)
        if not len(voxels):
            raise Fault("mask_shape", f"{folder / 'mask.nii.gz'} lacks nodule {number} of its report; predict again")
        found.append(_row(scan, voxels))
    return found


def _mask(path: Path, scan: Scan) -> np.ndarray:
    header = nifti1.read_header(path)
    mask = volume.lay_out(header.geometry, path).turn(nifti1.read_voxels(path, header))
    if mask.shape != scan.voxels.shape:
        raise Fault("mask_shape", f"{path} has {mask.shape} voxels, its scan {scan.voxels.shape}; predict again")
    return mask


def _row(scan: Scan, voxels: np.ndarray) -> _Row:
    widest, _, _ = diameters.recist(voxels, scan.spacing_mm)
    corner = patches.corner(voxels, widest)
    bits = np.zeros(scan.voxels.shape[1:], np.uint8)
    ratings = np.zeros((READERS, len(RATING_NAMES)), np.int8)
    nodule = _shared(scan, voxels)
    for reader, one in enumerate(nodule.readings[:READERS] if nodule else ()):
        ratings[reader] = one.ratings
        inside = widest - one.origin[0]
        if 0 <= inside < len(one.mask):
            bits[one.box[1:]] |= one.mask[inside].astype(np.uint8) << reader
    return _Row(
        patient_id=scan.patient_id,
        series_uid=scan.series_uid,
        sop_uid=scan.sop_uids[widest],
        z_mm=float(scan.z_mm[widest]),
        pixel_spacing_mm=float(scan.spacing_mm[1]),
        hu=crop.cut(scan.voxels[widest], corner, patches.SIDE_PX).copy(),
        reader_ratings=ratings,
        reader_outlines=crop.cut(bits, corner, patches.SIDE_PX, fill=0).copy(),
    )


def _shared(scan: Scan, voxels: np.ndarray) -> Nodule | None:
    """The nodule whose outlines, of any reader, hold most of a finding's voxels; None where none holds any."""
    most, best = 0, None
    for marked in truth.of(scan):
        inside = voxels - marked.origin
        inside = inside[((inside >= 0) & (inside < marked.votes.shape)).all(axis=1)]
        shared = int((marked.votes[tuple(inside.T)] > 0).sum())
        if shared > most:
            most, best = shared, marked.index
    return next((one for one in scan.nodules if one.index == best), None)


def _write(rows: Sequence[_Row], answers: dict[str, float], out: Path, left_out: dict[str, str]) -> Summary:
    workdir.make(out.parent, option="--out")
    columns = {field.name: np.array([getattr(row, field.name) for row in rows]) for field in dataclasses.fields(_Row)}
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
