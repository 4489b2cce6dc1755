"""The one list of faults and notes: every name that `quarantine.jsonl` and `lungjax doctor` may give, and what to do.

A fault quarantines its scan, or a single file that belongs to none. A note is worth knowing of a scan that is
prepared all the same, or of what was never meant to be: it makes no exit code. Names are stable: scripts may rely on
them.
"""

from __future__ import annotations

FAULTS = {
    # The files themselves.
    "link": "a link to a folder is not followed, as it may lead in a circle; put the folder itself in its place",
    "unreadable_folder": "a folder cannot be looked into; check its permissions",
    "unreadable_file": "a file is truncated, damaged, or no image of one grey value a pixel; fetch it again",
    "not_utf8": "a name that is not UTF-8, so it cannot be written down; rename it",
    "missing_file": "a header names a file of voxels that is not there; fetch it",
    "missing_tag": "a DICOM file lacks a tag without which it has no HU or no place; fetch the original",
    "too_large": "a file asks for more memory, by its header or once unpacked, than any scan takes; fetch it again",
    "no_decoder": "nothing installed decodes its compressed transfer syntax; `pip install 'lungjax[compressed]'`",
    "short_pixels": "there are fewer bytes of pixels than rows x columns take; fetch it again",
    # Which scan it is.
    "not_ct": "a series of a modality that LIDC-IDRI does not have, or one of its CTs that says so; fetch it again",
    "not_in_database": "not a scan of LIDC-IDRI, so no reader's outlines fit; anonymised anew, perhaps",
    "duplicate_series": "the same scan is there twice; keep one",
    "several_patients": "the same scan is said to be of several patients; correct the source",
    "several_channels": "a case has more than one channel and a CT has one; remove the others",
    # Its slices.
    "incomplete_series": "slices are missing, or there are more than LIDC-IDRI has; fetch the series again",
    "duplicate_positions": "two slices lie at the same place; keep one",
    "uneven_spacing": "slices are not evenly spaced, as they are in LIDC-IDRI; fetch the series again",
    "mixed_geometry": "slices differ in size, pixel spacing, orientation or series, or lie beside one another",
    "oblique_orientation": "its axes are more than 10 degrees from those of the body; use the original, or resample it",
    "missing_orientation": "the header does not say how it lies in the patient; use the original",
    "non_square_pixels": "rows and columns are not equally spaced, as in all of LIDC-IDRI; use the original",
    "matrix_mismatch": "another matrix or field of view than the readers' outlines are for; use the original",
    "not_3d": "no volume of one number a voxel",
    # Its values.
    "wrong_rescale": "its rescale tags cannot give, or its pixels do not hold, both air and tissue; use the original",
    "hu_out_of_range": "HU that int16 cannot hold; its rescale tags or its pixels are wrong",
    "not_hu": "its numbers span too little to be HU; use it as it was before scaling",
    "not_8_bit": "an image is not 8-bit grey",
    "rating_out_of_range": "a rating that no reader can give; fetch it again",
    "not_finite": "pixels that are no finite number; fetch it again",
    "not_zscore": "an image that should be z-scored holds other numbers, HU perhaps; use the original",
    "object_array": "a NumPy file holds Python objects, which could run anything; use the original",
    "not_2d": "a NumPy file holds no matrix; use the original",
    "not_float": "a NumPy file of an image holds no floats; use the original",
    "fraction_out_of_range": "an image that should lie in 0 to 1 does not; use it as it was before it was scaled anew",
    # Masks of other formats.
    "missing_image": "a mask or label map has no image; fetch that too",
    "missing_mask": "an image has no mask; fetch that too",
    "mask_shape": "a mask has other dimensions than its image",
    "mask_position": "a label map lies elsewhere than its volume; resample it onto that",
    "not_a_label": "a label map holds fractions; store the labels themselves",
    "too_many_readers": "masks of more than four readers, which LIDC does not have",
    # What `lungjax gather` reads.
    "not_predicted": "`lungjax predict` has not been run on this scan; run it first",
    "refused": "`lungjax predict` refused this scan, for the reason given",
}
"""Why a scan is quarantined: name -> what it means; what to do."""

NOTES = {
    "ambiguous_cluster": "readers' outlines of several nodules touch; split as pylidc does it, by a smaller tolerance, "
    "and kept together where it gives up",
    "flipped_orientation": "prepared as it is: the readers outlined it so",
    "missing_scan": "the patient has another scan, which is not here",
    "mixed_series": "several series in one folder, told apart by SeriesInstanceUID",
    "uneven_in_lidc": "slices are not evenly spaced, in LIDC-IDRI itself; each keeps its position, the spacing is the "
    "median",
    "x_ray": "a series of X-rays (CR, DX), of which a whole LIDC-IDRI has some beside the CT; listed and passed over",
    "derived": "a series that was derived from a CT (SEG, SR, RTSTRUCT) and lies beside it; listed and passed over",
    "padding": "a value outside the scanner's field; its voxels are kept, and the data set tells which they are",
}
"""What is prepared all the same, or passed over: name -> what it means."""

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
)
"""Faults that may show only when voxels are read, by `prepare`, also where `doctor` has looked at all else."""
