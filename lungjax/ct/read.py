"""Any CT of a chest to a `Scan`: a folder of DICOM, or a file of NIfTI or MetaImage; nobody's outlines are needed.

find: which scans a source holds, from names and headers -> read: one of them, its voxels and where they lie
"""

from __future__ import annotations

import re
from pathlib import Path

from lungjax.ct import dicom, hounsfield, metaimage, nifti, series, volume
from lungjax.ct.scan import Scan
from lungjax.ct.source import Entry, Quarantined
from lungjax.errors import Fault

_VOLUME = re.compile(r"(?P<stem>[^.].*?)\.(?P<kind>nii|nii\.gz|mhd)")


def matches(source: Path) -> bool:
    """Whether a source is a folder with DICOM files in it, or a file named like NIfTI or MetaImage."""
    return dicom.matches(source) or (source.is_file() and _VOLUME.fullmatch(source.name) is not None)


def find(source: Path) -> tuple[list[Entry], list[Quarantined]]:
    """Every CT of a source; both lists sorted by key: the SeriesInstanceUID, or the name of a file without its suffix.

    Quarantined are DICOM series of other modalities (`not_ct`), of nobody (`missing_tag`), and single files and folders
    as `dicom.find_series` lists them.
    """
    if source.is_file():
        name = _VOLUME.fullmatch(source.name)
        return ([Entry(name["stem"], name["stem"], str(source), (str(source),))] if name else []), []
    found, quarantined = dicom.find_series(source, dicom.read_header)
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
    return sorted(entries, key=lambda entry: entry.key), sorted(quarantined, key=lambda line: line.key)


def read(entry: Entry, *, uneven: bool = False) -> Scan:
    """One scan, from the feet to the head; without nodules.

    Args:
      entry: from `find`.
      uneven: DICOM slices that are known not to be spaced alike are read all the same, their spacing being the median.

    Raises:
      Fault: why it cannot be read; see `lungjax.ct.dicom.read_slices`, `lungjax.ct.series.order` and `.read`,
        `lungjax.ct.nifti`, `lungjax.ct.metaimage`, `lungjax.ct.hounsfield`.
    """
    paths = [Path(path) for path in entry.locator]
    if _VOLUME.fullmatch(paths[0].name) and len(paths) == 1:
        return _read_volume(entry, paths[0])
    slices = [image for path in paths for image in dicom.read_slices(path)]
    series.check_axial(slices[0].orientation, entry.where)
    stack = series.order(slices, uneven=uneven)
    return series.read(stack).scan(patient_id=entry.patient_id, where=entry.where)


def _read_volume(entry: Entry, path: Path) -> Scan:
    """A volume of one file, its axes turned to those of an axial CT."""
    if path.suffix == ".mhd":
        header = metaimage.read_header(path)
        layout, voxels = volume.lay_out(header.geometry, path), metaimage.read_voxels(header)
    else:
        header = nifti.read_header(path)
        layout, voxels = volume.lay_out(header.geometry, path), nifti.read_voxels(path, header)
    hu = hounsfield.to_int16(layout.turn(voxels), str(path))
    return layout.scan(hu, key=entry.key, patient_id=entry.patient_id)
