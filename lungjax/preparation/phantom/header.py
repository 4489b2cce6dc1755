"""CT headers of the phantom: what LIDC's four manufacturers write; no day, no person."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from lungjax.lidc.annotations import MATRIX, ScanRow

_IMPLEMENTATION = UID("2.25.187394562201845372968027364510298374655")
_DATE, _TIME = "20000101", "120000"
"""LIDC's dates are all moved to this day; a phantom has no other, or two writings would differ."""
_NOTE = "Synthetic image by lungjax: drawn around contours of LIDC-IDRI, not a patient"


@dataclasses.dataclass(frozen=True)
class Scanner:
    """How one family of scanners stores its pixels.

    Attributes:
      manufacturer, model, kernel: as LIDC-IDRI's headers have them.
      signed: pixels are two's complement.
      bits: of 16 that are used.
      intercept: HU of stored 0.
      padding: PixelPaddingValue; None where the tag is absent.
      outside: stored value outside the reconstruction circle; None where the scanner fills the square.
    """

    manufacturer: str
    model: str
    kernel: str
    signed: bool
    bits: int
    intercept: int
    padding: int | None
    outside: int | None

    def stored(self, hu: np.ndarray, inside: np.ndarray) -> np.ndarray:
        """Little-endian 16-bit pixels of HU; `inside` is the reconstruction circle."""
        low, high = (-(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1) if self.signed else (0, 2**self.bits - 1)
        # No scanner reports less than air holds: -1024, whatever noise adds.
        values = np.rint(np.clip(hu, -1024, 3071)) - self.intercept
        pixels = np.clip(values, low, high).astype("<i2" if self.signed else "<u2")
        if self.outside is not None:
            pixels[~inside] = self.outside
        return pixels


SCANNERS = (
    Scanner("GE MEDICAL SYSTEMS", "LightSpeed Plus", "BONE", True, 16, -1024, -2000, -2000),
    # LIDC-IDRI-0003's way: the tag names -2000, the pixels hold -1024, that is -2048 HU.
    Scanner("GE MEDICAL SYSTEMS", "LightSpeed16", "STANDARD", True, 16, -1024, -2000, -1024),
    Scanner("SIEMENS", "Sensation 16", "B30f", False, 12, -1024, None, 0),
    Scanner("Philips", "Brilliance 16P", "C", False, 12, -1000, None, None),
    Scanner("TOSHIBA", "Aquilion", "FC03", True, 16, 0, None, None),
)
_SHARES = (0.45, 0.2, 0.2, 0.08, 0.07)
"""About LIDC-IDRI's: two thirds GE, a fifth Siemens."""


def scanner(rng: np.random.Generator) -> Scanner:
    """A scanner by LIDC's shares."""
    return SCANNERS[int(rng.choice(len(SCANNERS), p=_SHARES))]


def uid(*parts: object) -> str:
    """A UID that is a function of its arguments: 2.25 and the first 128 bits of their SHA-256."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def series(row: ScanRow, machine: Scanner, *, matrix: int) -> FileDataset:
    """A CT Image data set with all that the slices of a series share; `place` completes it for one slice."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = _IMPLEMENTATION
    meta.ImplementationVersionName = "LUNGJAX"
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    spacing_mm = row.pixel_spacing_mm * MATRIX / matrix
    fields = _patient_and_study(row) | _acquisition(row, machine)
    fields |= {
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": matrix,
        "Columns": matrix,
        "PixelSpacing": [f"{spacing_mm:.6f}"] * 2,
        "BitsAllocated": 16,
        "BitsStored": machine.bits,
        "HighBit": machine.bits - 1,
        "PixelRepresentation": int(machine.signed),
        "WindowCenter": "-600",
        "WindowWidth": "1600",
        "RescaleIntercept": str(machine.intercept),
        "RescaleSlope": "1",
        "RescaleType": "HU",
    }
    for name, value in fields.items():
        setattr(data, name, value)
    if machine.padding is not None:
        data.add_new((0x0028, 0x0120), "SS" if machine.signed else "US", machine.padding)
    return data


def place(data: FileDataset, row: ScanRow, *, slice_index: int, sop_uid: str, pixels: np.ndarray) -> None:
    """Turns the shared data set into that of one slice; InstanceNumber 1 is the uppermost, as in LIDC."""
    corner_mm = -(pixels.shape[0] - 1) / 2 * row.pixel_spacing_mm * MATRIX / pixels.shape[0]
    z_mm = row.z_mm[slice_index]
    data.file_meta.MediaStorageSOPInstanceUID = UID(sop_uid)
    data.SOPInstanceUID = sop_uid
    data.InstanceNumber = len(row.z_mm) - slice_index
    data.ImagePositionPatient = [f"{corner_mm:.4f}", f"{corner_mm:.4f}", f"{z_mm:.6f}"]
    data.SliceLocation = f"{z_mm:.6f}"
    data.PixelData = pixels.tobytes()


def _patient_and_study(row: ScanRow) -> dict[str, object]:
    return {
        "SpecificCharacterSet": "ISO_IR 100",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SOPClassUID": CTImageStorage,
        "StudyDate": _DATE,
        "SeriesDate": _DATE,
        "AcquisitionDate": _DATE,
        "ContentDate": _DATE,
        "StudyTime": _TIME,
        "SeriesTime": _TIME,
        "AcquisitionTime": _TIME,
        "ContentTime": _TIME,
        "AccessionNumber": "",
        "Modality": "CT",
        "ReferringPhysicianName": "",
        "StudyDescription": "CHEST",
        "SeriesDescription": "lungjax phantom",
        "PatientName": "PHANTOM^LUNGJAX",
        "PatientID": row.patient_id,
        "PatientBirthDate": "",
        "PatientSex": "",
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": "synthetic",
        "BodyPartExamined": "CHEST",
        "StudyInstanceUID": row.study_uid,
        "SeriesInstanceUID": row.series_uid,
        "StudyID": str(row.scan_id),
        "SeriesNumber": 2,
        "AcquisitionNumber": 1,
        "FrameOfReferenceUID": uid("frame", row.series_uid),
        "PositionReferenceIndicator": "SN",
        "ImageComments": _NOTE,
    }


def _acquisition(row: ScanRow, machine: Scanner) -> dict[str, object]:
    return {
        "Manufacturer": machine.manufacturer,
        "ManufacturerModelName": machine.model,
        "ScanOptions": "HELICAL MODE",
        "SliceThickness": f"{row.slice_thickness_mm:.6f}",
        "KVP": "120",
        "DataCollectionDiameter": "500",
        "ReconstructionDiameter": f"{row.pixel_spacing_mm * MATRIX:.6f}",
        "GantryDetectorTilt": "0",
        "XRayTubeCurrent": "300",
        "ExposureTime": "1000",
        "ConvolutionKernel": machine.kernel,
        "PatientPosition": "FFS",
    }
