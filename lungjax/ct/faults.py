"""The one list of faults and notes: every name that `quarantine.jsonl` and `lungjax doctor` may give, and what to do.

A fault quarantines its scan, or a single file that belongs to no scan. A note is worth knowing about a scan that is
prepared all the same, or about a series that is not meant to be prepared; it does not change the exit code. Names are
stable: scripts may rely on them.
"""

from __future__ import annotations

import dataclasses
import errno

from lungjax.errors import Fault, plain


@dataclasses.dataclass(frozen=True)
class Note:
    """Something worth knowing about a scan that is read all the same: a name of `NOTES`, and one sentence."""

    name: str
    message: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "message", plain(self.message))


def cannot_read(path: object, error: Exception) -> Fault:
    """The fault `unreadable_file` of a file that could not be read, with what helps: to fetch it again, unless this
    computer is what keeps it from being read."""
    why = f"{path} cannot be read ({error or type(error).__name__})"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
        return Fault("unreadable_file", f"{why}; check its permissions")
    if isinstance(error, OSError) and error.errno in (errno.EIO, errno.EISDIR, errno.ESTALE):
        return Fault("unreadable_file", f"{why}; check the disk it lies on")
    return Fault("unreadable_file", f"{why}; fetch it again")


FAULTS = {
    # The files themselves.
    "link": "a link to a folder is not followed, because it may lead in a circle; put the folder itself in its place",
    "unreadable_folder": "a folder cannot be opened; check its permissions",
    "unreadable_file": "a file is truncated, damaged, not a greyscale image, or kept from being read; its message says "
    "what helps",
    "not_utf8": "a name is not UTF-8, so it cannot be written to a report; rename it",
    "missing_file": "a header names a file of voxels that does not exist; fetch it",
    "missing_tag": "a DICOM file lacks a tag that its HU or its position needs; fetch the original",
    "too_large": "a file asks for more memory, by its header or once unpacked, than any scan takes; use the original",
    "no_decoder": "no decoder is installed for its compressed transfer syntax; its message says what helps",
    "short_pixels": "there are fewer bytes of pixels than rows x columns take; use the original",
    # Which scan it is.
    "not_ct": "a series has a modality that LIDC-IDRI does not contain, or a CT of LIDC-IDRI has another modality in "
    "its header; use the original",
    "not_in_database": "not a scan of LIDC-IDRI, so no reader's outlines fit it; its UIDs may have been replaced",
    "has_readers": "a scan of LIDC-IDRI, whose readers' nodules are known, among scans without nodules; use lidc",
    "duplicate_series": "the same scan exists twice; keep one",
    "several_patients": "the same scan is assigned to several patients; correct the source",
    "several_studies": "the files of one series name several studies or frames of reference; separate them",
    "several_channels": "a case has more than one channel, but a CT has one; remove the others",
    # Its slices.
    "incomplete_series": "slices are missing, there are more than in LIDC-IDRI, or each is a series; fetch it again",
    "duplicate_positions": "two slices lie at the same position; keep one",
    "uneven_spacing": "slices are not evenly spaced, although they are in LIDC-IDRI; fetch the series again",
    "mixed_geometry": "slices differ in size, pixel spacing, orientation or series, or do not lie above one another",
    "oblique_orientation": "its axes are more than 10 degrees from the body's; use the original, or resample it",
    "gantry_tilt": "its slices are tilted against the direction in which they are stacked; resample it",
    "missing_orientation": "the header does not give its orientation in the patient; use the original",
    "non_square_pixels": "rows and columns differ in spacing, which never occurs in LIDC-IDRI; use the original",
    "matrix_mismatch": "its matrix or field of view is not that of the readers' outlines; use the original",
    "not_3d": "not a three-dimensional volume with one number per voxel",
    # Its values.
    "wrong_rescale": "its rescale tags cannot give, or its pixels do not hold, both air and tissue; use the original",
    "wrong_bits": "its header says that pixels are not the lowest bits of what is stored, on which readers disagree; "
    "use the original",
    "hu_out_of_range": "HU that int16 cannot hold; its rescale tags or its pixels are wrong",
    "not_hu": "its numbers cannot be the HU of a chest: scaled, moved by 1024, without air, lung or soft tissue; use "
    "the image as it was before",
    "not_8_bit": "an image is not 8-bit greyscale",
    "rating_out_of_range": "a rating lies outside the scale of the readers; use the original",
    "not_finite": "pixels are NaN or infinite; use the original",
    "not_zscore": "an image that should be z-scored holds other numbers, perhaps HU; use the original",
    "object_array": "a NumPy file holds Python objects, which could run any code; use the original",
    "not_2d": "a NumPy file does not hold a matrix; use the original",
    "not_float": "a NumPy file of an image does not hold floats; use the original",
    "fraction_out_of_range": "an image that should lie in 0 to 1 does not; use it as it was before it was rescaled",
    # Masks of other formats.
    "missing_image": "a mask or label map has no image; fetch that too",
    "missing_mask": "an image has no mask; fetch that too",
    "mask_shape": "a mask and its image differ in their dimensions",
    "mask_position": "a label map and its volume differ in position; resample the label map onto the volume",
    "not_a_label": "a label map holds fractions; store the labels themselves",
    "ignored_label": "a label map holds what nnU-Net's dataset.json calls ignored; name the nodules by --label",
    "organ_map": "a label map marks more in one piece than any nodule, as of an organ; name the nodules by --label",
    "not_in_table": "the table of patients does not name this scan; add it",
    "too_many_readers": "masks of more than four readers, which LIDC-IDRI does not have",
    # What `lungjax gather` reads.
    "not_predicted": "`lungjax predict` has not been run on this scan; run it first",
    "refused": "`lungjax predict` refused this scan, for the reason given",
}
"""Why a scan is quarantined: name -> what it means; what to do."""

NOTES = {
    "ambiguous_cluster": "readers' outlines of several nodules touch; split as pylidc does, with a smaller tolerance, "
    "and kept together where pylidc gives up",
    "flipped_orientation": "prepared in the orientation that the readers saw when they outlined it",
    "missing_scan": "the patient has another scan, which is not in the source",
    "mixed_series": "several series in one folder, distinguished by SeriesInstanceUID",
    "uneven_in_lidc": "slices are not evenly spaced in LIDC-IDRI itself; each keeps its position, and the spacing is "
    "the median",
    "x_ray": "a series of X-rays (CR, DX), as a complete LIDC-IDRI has some besides the CT; listed and skipped",
    "derived": "a series that was derived from a CT (SEG, SR, RTSTRUCT) and lies next to it; listed and skipped",
    "left_out": "files in a CT series that are no image of its scan (a localizer, a capture, a copy, another "
    "orientation); listed and skipped",
    "several_reconstructions": "one series holds several reconstructions of a scan, by kernel or thickness, or several "
    "acquisitions; each is a scan of its own",
    "rounded_positions": "positions were rounded by the scanner; the spacing is their mean step",
    "tilt_in_header": "the header tells of a gantry tilt, but by their positions the slices lie straight above one "
    "another; positions count",
    "not_a_number": "voxels outside the field of view are NaN; read as padding",
    "two_affines": "qform and sform of a NIfTI file disagree, and programs differ in which they take",
    "padding": "a value outside the scanner's field of view; its voxels are kept, and the data set marks them",
}
"""What is prepared all the same, or skipped: name -> what it means."""

IN_VOXELS = (
    "hu_out_of_range",
    "wrong_rescale",
    "not_hu",
    "not_finite",
    "unreadable_file",
    "too_large",
    "not_8_bit",
    "mask_shape",
    "mixed_geometry",
    "not_a_label",
    "ignored_label",
    "organ_map",
)
"""Faults that may appear only when `prepare` reads the voxels, although `doctor` has checked everything else."""
