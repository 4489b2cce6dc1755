"""CT of the chest as DICOM, of LIDC-IDRI or not, for `lungjax predict`: nobody's outlines are needed.

A series that LIDC-IDRI has is held against its database, as in `prepare`; of any other the headers and the voxels must
make one axial volume in HU. It may lie in one file, as an enhanced CT.
"""

from __future__ import annotations

from pathlib import Path

from lungjax.ct import dicom, dicom_tree, multiframe, series, size_limits
from lungjax.ct.entry import Entry, Quarantined
from lungjax.ct.scan import Scan
from lungjax.errors import Fault
from lungjax.lidc import annotations, match
from lungjax.preparation.formats import lidc

matches = dicom_tree.matches


def find(source: Path) -> tuple[list[Entry], list[Quarantined]]:
    """Every CT series under a folder, from the files' headers; both lists sorted by key, the SeriesInstanceUID.

    Quarantined are series of other modalities (`not_ct`), and single files and folders, as `lidc.find` does.
    """
    found, quarantined = dicom_tree.group(source, dicom.read_header)
    entries = []
    for series_uid, (modality, paths) in found.items():
        where = str(paths[0].parent)
        try:
            if modality != "CT":
                raise Fault("not_ct", f"the series in {where} has modality {modality or 'unknown'}, not CT")
            patient_id = dicom.read_patient_id(paths[0])
        except Fault as fault:
            quarantined.append(Quarantined(series_uid, where, fault.name, fault.message))
        else:
            entries.append(Entry(series_uid, patient_id, where, tuple(str(path) for path in paths)))
    return sorted(entries, key=lambda one: one.key), sorted(quarantined, key=lambda one: one.key)


def read(entry: Entry) -> Scan:
    """One series; with its readers' nodules if it is LIDC-IDRI's.

    Raises:
      Fault: as `lidc.read` does; of a series that is not LIDC-IDRI's no fault that its database alone can tell.
    """
    if annotations.scan_row(entry.key) is not None:
        return lidc.read(entry)
    slices = [one for path in entry.locator for one in multiframe.read_slices(Path(path))]
    match.check_axial(slices[0].orientation, entry.where)
    need = sum(2 * one.pixels.shape[0] * one.pixels.shape[1] for one in slices)
    size_limits.check(need, size_limits.SCAN_BYTES, f"the series in {entry.where}, by the bytes of its pixels,")
    ordered = series.assemble(slices)
    match.check_hu(ordered.range_hu, entry.where)
    return Scan(
        patient_id=entry.patient_id,
        study_uid=ordered.study_uid,
        series_uid=ordered.series_uid,
        voxels=ordered.voxels,
        intensity="hu",
        z_mm=ordered.z_mm,
        spacing_mm=ordered.spacing_mm,
        sop_uids=ordered.sop_uids,
        padding_hu=ordered.padding_hu,
        nodules=(),
        affine_lps=ordered.affine_lps,
    )
