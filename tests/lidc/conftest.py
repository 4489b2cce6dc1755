"""Small sources written on the spot, for tests that need a fault or a value of their own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from lungjax.lidc import annotations
from lungjax.lidc.annotations import ScanRow

WriteCt = Callable[..., list[Path]]


@pytest.fixture
def tree(kaggle_tree: Path, tmp_path: Path) -> Path:
    """Three patients, four nodules."""
    root = tmp_path / "source"
    for number in (9000, 9001, 9002):
        shutil.copytree(kaggle_tree / "LIDC-IDRI-slices" / f"LIDC-IDRI-{number}", root / f"LIDC-IDRI-{number}")
    return root


@pytest.fixture(scope="session")
def write_ct() -> WriteCt:
    """`write_ct(folder, stored, z_mm=..., tags=...)` writes one series; see `_write_ct`."""
    return _write_ct


@pytest.fixture(scope="session")
def rows() -> list[ScanRow]:
    """Every scan of the database."""
    return annotations.all_scans()


@pytest.fixture(scope="session")
def write_scan(write_ct):
    """Writes a scan of the database where it says its slices are, on a smaller matrix of the same field."""

    def write(folder: Path, row: ScanRow, *, matrix: int = 128, z_mm: np.ndarray | None = None, **tags):
        z_mm = row.z_mm if z_mm is None else z_mm
        stored = np.arange(len(z_mm) * matrix**2).reshape(-1, matrix, matrix) % 3000
        spacing_mm = row.pixel_spacing_mm * 512 / matrix
        tags = {"PatientID": row.patient_id, "PixelSpacing": [spacing_mm, spacing_mm], **tags}
        positions_mm = [round(float(z), 6) for z in z_mm]
        return write_ct(folder, stored.astype(np.int16), z_mm=positions_mm, series_uid=row.series_uid, tags=tags)

    return write


def _write_ct(
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
