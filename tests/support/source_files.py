"""Scans as each format lays them out, written on the spot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from lungjax.ct.scan import Scan
from lungjax.lidc.annotations import ScanRow

MATRIX = 128
"""Of a scan of the database, unless a test asks for another."""
NUMBERS = (2, 9, 30)
SIDE_PX = 24
"""LUNGD's slices and their size."""


def write_ct(
    folder: Path,
    stored: np.ndarray,
    *,
    z_mm: Sequence[float] | None = None,
    series_uid: str = "1.2.3.4",
    tags: Mapping[str, Any] | None = None,
    suffix: str = ".dcm",
) -> list[Path]:
    """Writes int16 or uint16 `stored` (slices, rows, columns) with slope 1, intercept -1024, 2 mm pixels.

    Slice k lies at `z_mm[k]`, by default 5k, and holds `stored[k]`. `tags` replace others; None deletes one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, image in enumerate(stored):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series_uid, str(number)])
        path = folder / f"{number:03}{suffix}"
        dataset = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
        values = {
            "SOPClassUID": CTImageStorage,
            "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
            "Modality": "CT",
            "PatientID": "TEST-1",
            "StudyInstanceUID": "1.2.3",
            "SeriesInstanceUID": series_uid,
            "ImagePositionPatient": [-10.0, -20.0, 5.0 * number if z_mm is None else z_mm[number]],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [2.0, 2.0],
            "Rows": image.shape[0],
            "Columns": image.shape[1],
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": int(image.dtype == np.int16),
            "RescaleSlope": 1,
            "RescaleIntercept": -1024,
            "PixelData": image.astype(image.dtype.newbyteorder("<")).tobytes(),
        }
        for tag, value in {**values, **(tags or {})}.items():
            if value is not None:
                setattr(dataset, tag, value)
        pydicom.dcmwrite(path, dataset, enforce_file_format=True)
        paths.append(path)
    return paths


def write_scan(
    folder: Path, row: ScanRow, *, matrix: int = MATRIX, z_mm: np.ndarray | None = None, **tags: Any
) -> list[Path]:
    """A scan of the database where it says its slices are, on a smaller matrix of the same field."""
    z_mm = row.z_mm if z_mm is None else z_mm
    stored = np.arange(len(z_mm) * matrix**2).reshape(-1, matrix, matrix) % 3000
    spacing_mm = row.pixel_spacing_mm * 512 / matrix
    tags = {"PatientID": row.patient_id, "PixelSpacing": [spacing_mm, spacing_mm], **tags}
    positions_mm = [round(float(z), 6) for z in z_mm]
    return write_ct(folder, stored.astype(np.int16), z_mm=positions_mm, series_uid=row.series_uid, tags=tags)


def luna16_image(scan: Scan, *, turned: bool = False) -> sitk.Image:
    """As LUNA16 was made: the raster of the DICOM images, and in the header where it lies."""
    image = sitk.GetImageFromArray(scan.voxels)
    image.SetSpacing(scan.spacing_mm[::-1])
    image.SetOrigin((170.0 if turned else -170.0, 150.0 if turned else -150.0, float(scan.z_mm[0])))
    if turned:
        image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    return image


def write_luna16(folder: Path, series_uid: str, image: sitk.Image, *, packed: bool = False) -> Path:
    path = folder / "subset3" / f"{series_uid}.mhd"
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), useCompression=packed)
    assert path.with_suffix(".zraw" if packed else ".raw").exists()
    return path


def study_end(row: ScanRow) -> str:
    return row.study_uid.rsplit(".", 1)[1]


def write_png(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def write_lungd_png(root: Path, rows: Sequence[ScanRow], *, marked: bool = True) -> Path:
    """Three slices of each scan; returns `root`."""
    rng = np.random.default_rng(0)
    for row in rows:
        for number in NUMBERS:
            name = f"{study_end(row)}_slice{number}.png"
            write_png(root / "images" / name, rng.integers(0, 256, (SIDE_PX, SIDE_PX)))
            mask = np.zeros((SIDE_PX, SIDE_PX))
            mask[4 : 4 + number // 2, 7:11] = 255 * marked
            write_png(root / "masks" / name, mask)
    return root
