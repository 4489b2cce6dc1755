"""One file with a whole volume, MetaImage or NIfTI, read by SimpleITK and turned to the axes of an axial CT."""

from __future__ import annotations

import dataclasses
import gzip
import importlib.util
import math
import re
import zlib
from pathlib import Path

import numpy as np

from lungjax.lidc.scan import Fault, InputError

AXIAL = "LPS"
"""Columns go to the patient's left, rows to the back, slices to the head: nearly every chest CT."""

_NEAR_AXIAL = math.cos(math.radians(10))
_LEAST_SPAN_HU = 100
"""Air and tissue are 1000 HU apart: less than this is no CT any more, but scaled by someone."""
_CHUNK_BYTES = 2**20
_DEFLATE = 1032
"""How many times smaller zlib can make anything at best."""


@dataclasses.dataclass(frozen=True, eq=False)
class Volume:
    """A volume in patient coordinates, those of DICOM: to the left, to the back, to the head.

    Attributes:
      voxels: (slices, rows, columns), the numbers of the file.
      z_mm: (slices,) float64, ascending, position along the slices' normal.
      spacing_mm: (slice, row, column) distance between voxel centres.
      position_mm: (3,) float64, centre of voxel [0, 0, 0].
    """

    voxels: np.ndarray
    z_mm: np.ndarray
    spacing_mm: tuple[float, float, float]
    position_mm: np.ndarray


def require_itk() -> None:
    """Raises InputError where SimpleITK, which is optional, is missing."""
    if importlib.util.find_spec("SimpleITK") is None:
        raise InputError("SimpleITK, which reads .mhd and .nii, is not installed; run `pip install 'lungjax[itk]'`.")


def read_volume(path: Path, *, io: str, content: Path, axes: str = AXIAL) -> Volume:
    """A volume, its axes swapped and reversed until they run as `axes` says; no voxel is interpolated.

    Args:
      path: the file.
      io: SimpleITK's reader, `MetaImageIO` or `NiftiImageIO`.
      content: the file that holds the voxels, often the same.
      axes: where columns, rows and slices go, as SimpleITK spells it.

    Raises:
      Fault: `unreadable_file`, `not_3d`, `missing_orientation`, or `oblique_orientation` where an axis is more than
        10 degrees from those of the body.
    """
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # Scans are read in parallel, one a process.
    reader = sitk.ImageFileReader()
    reader.SetImageIO(io)
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        _check_header(reader, path)
        need = _bytes_needed(reader)
        _check_whole(content, need, 2 * need + _CHUNK_BYTES)
        image = sitk.DICOMOrient(reader.Execute(), axes)
    except (OSError, EOFError, zlib.error, ValueError, OverflowError) as error:
        raise Fault("unreadable_file", f"{content} cannot be read ({error}); fetch it again") from error
    except RuntimeError as error:
        raise Fault("unreadable_file", f"{path} cannot be read ({_reason(error)}); fetch it again") from error
    directions = np.reshape(image.GetDirection(), (3, 3))  # columns: where columns, rows, slices go
    if np.abs(np.diag(directions)).min() < _NEAR_AXIAL:
        message = f"{path} is no axial volume: its axes are more than 10 degrees from the body's; resample it"
        raise Fault("oblique_orientation", message)
    position_mm = np.array(image.GetOrigin())
    columns_mm, rows_mm, slices_mm = image.GetSpacing()
    steps_mm = slices_mm * np.arange(image.GetSize()[2])
    return Volume(
        voxels=sitk.GetArrayFromImage(image),
        z_mm=float(position_mm @ directions[:, 2]) + steps_mm,
        spacing_mm=(slices_mm, rows_mm, columns_mm),
        position_mm=position_mm,
    )


def hounsfield(voxels: np.ndarray, path: Path) -> np.ndarray:
    """int16 HU of the same shape, from numbers of any type, rounded.

    Raises:
      Fault: `hu_out_of_range`, or `not_hu` where the numbers span too little to be HU.
    """
    low, high = float(voxels.min()), float(voxels.max())  # NaN if any voxel is
    if not -32768.5 < low <= high < 32767.5:
        raise Fault("hu_out_of_range", f"{path} holds {low:g} to {high:g} HU, which int16 cannot hold")
    if high - low < _LEAST_SPAN_HU:
        raise Fault("not_hu", f"{path} holds {low:g} to {high:g}, which are no HU; use it as it was before scaling")
    if voxels.dtype.kind == "f":
        voxels = np.rint(voxels)
    return voxels.astype(np.int16, copy=False)


def _check_header(reader, path: Path) -> None:
    """`reader` has read the header and nothing else."""
    size = reader.GetSize()
    if sum(length > 1 for length in size) != 3 or len(size) != 3 or reader.GetNumberOfComponents() != 1:
        shape = f"{' x '.join(map(str, size))} with {reader.GetNumberOfComponents()} numbers a voxel"
        raise Fault("not_3d", f"{path} is no volume of one number a voxel: {shape}")
    spacing_mm, position_mm = reader.GetSpacing(), reader.GetOrigin()
    if not all(0 < step < math.inf for step in spacing_mm) or not all(map(math.isfinite, position_mm)):
        place = f"spacing {spacing_mm} and origin {position_mm}"
        raise Fault("unreadable_file", f"{path} has {place}, which cannot be; fetch it again")
    codes = [reader.GetMetaData(code) for code in ("qform_code", "sform_code") if reader.HasMetaDataKey(code)]
    if codes == ["0", "0"]:
        raise Fault("missing_orientation", f"{path} does not say how it lies in the patient (qform and sform are 0)")


def _check_whole(content: Path, need: int, limit: int) -> None:
    """The file holds `need` bytes: NIfTI's reader takes half a file for a whole one."""
    have = content.stat().st_size
    if content.suffix == ".gz":
        have = 0
        with gzip.open(content) as file:  # to its end, where the checksum is, but not without end
            while have <= limit and (chunk := file.read(_CHUNK_BYTES)):
                have += len(chunk)
    elif content.suffix == ".zraw":
        have *= _DEFLATE  # zlib checks the rest; this keeps a header from asking for any amount of memory
    if have < need:
        raise Fault("unreadable_file", f"{content} is cut short: it has {have} of {need} bytes; fetch it again")


def _bytes_needed(reader) -> int:
    """Of the file that holds the voxels, as stored: a NIfTI's slope makes floats of what takes two bytes there."""
    import SimpleITK as sitk

    voxels = math.prod(reader.GetSize())
    if reader.HasMetaDataKey("bitpix"):
        offset = max(int(float(reader.GetMetaData("vox_offset"))), 0)
        return offset + voxels * int(reader.GetMetaData("bitpix")) // 8
    return voxels * sitk.Image(1, 1, 1, reader.GetPixelID()).GetSizeOfPixelComponent()


def _reason(error: RuntimeError) -> str:
    """What ITK says, without addresses in memory: those are others on each run."""
    last = str(error).strip().splitlines()[-1]
    return re.sub(r"ITK ERROR: |\w+\(0x[0-9a-f]+\): ", "", last).rstrip(".")
