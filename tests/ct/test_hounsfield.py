"""One check of HU: whatever is no HU of a chest is refused by every verb, and for every format alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import chests
import numpy as np
import pytest
import SimpleITK as sitk
import source_files

import lungjax
from lungjax.ct import hounsfield, read
from lungjax.errors import Fault, InputError
from lungjax.prediction import input_checks
from lungjax.preparation import doctor
from lungjax.preparation.run import prepare

PADDING_HU = -2000


def chest() -> np.ndarray:
    """A chest with noise, and with padding in the corners of its images, as GE writes it."""
    hu = chests.chest().astype(np.float32) + np.random.default_rng(0).normal(0, 20, chests.SHAPE)
    hu[:, :16, :16] = PADDING_HU
    return np.rint(hu)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "1024 added": lambda hu: np.clip(hu, -1024, 3071) + 1024,
    "1024 added, padding too": lambda hu: hu + 1024,
    "1024 subtracted twice": lambda hu: hu - 1024,
    "8 bits": lambda hu: np.rint(np.clip((hu + 1000) / 1400, 0, 1) * 255),
    "8 bits, signed": lambda hu: np.rint(np.clip((hu + 1000) / 1400, 0, 1) * 255) - 128,
    "fractions": lambda hu: np.clip((hu + 1000) / 1400, 0, 1),
    "from -1 to 1": lambda hu: np.clip((hu + 1000) / 700, 0, 2) - 1,
    "z-scores": lambda hu: (hu - hu.mean()) / hu.std(),
    "nothing but air": lambda hu: np.minimum(hu, -600),
    "nothing but tissue": lambda hu: np.maximum(hu, -90),
}


def write(folder: Path, values: np.ndarray, suffix: str) -> Path:
    """As a folder of DICOM, or as a file; integers where they are whole, as they would be."""
    whole = bool((values == np.rint(values)).all())
    if suffix == "dcm":
        tags = {"RescaleIntercept": 0, "PixelSpacing": [2.5, 2.5]}
        if not whole:
            pytest.skip("DICOM stores whole numbers")
        source_files.write_ct(folder / "dicom", values.astype(np.int16), tags=tags)
        return folder / "dicom"
    image = sitk.GetImageFromArray(values.astype(np.int16 if whole else np.float32))
    image.SetSpacing(chests.SPACING_MM[::-1])
    sitk.WriteImage(image, str(folder / f"case.{suffix}"))
    return folder / f"case.{suffix}"


def refusals(source: Path) -> dict[str, str]:
    """Of each verb, why the source is refused; nothing where it is not."""
    folder = source if source.is_dir() else source.parent
    (entry,), _ = read.find(source)
    told = {"doctor": "".join(one.message for one in doctor.examine(folder, format="unmarked").faults)}
    try:
        prepare(folder, folder.parent / f"{folder.name}-prepared", format="unmarked", workers=1)
        told["prepare"] = ""
    except InputError as error:
        told["prepare"] = str(error)
    try:
        read.read(entry)
        told["predict"] = ""
    except Fault as fault:
        told["predict"] = str(fault)
    return told


@pytest.mark.parametrize("suffix", ["dcm", "nii.gz", "mhd"])
def test_a_chest_is_no_fault(tmp_path: Path, suffix: str):
    assert set(refusals(write(tmp_path / "a", *made(tmp_path, chest()), suffix)).values()) == {""}


def made(tmp_path: Path, values: np.ndarray) -> tuple[np.ndarray]:
    (tmp_path / "a").mkdir()
    return (values,)


@pytest.mark.parametrize("suffix", ["dcm", "nii.gz", "mhd"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_no_hu_is_refused_by_every_verb(tmp_path: Path, change: str, suffix: str):
    told = refusals(write(tmp_path / "a", *made(tmp_path, CHANGES[change](chest())), suffix))
    assert all(told.values()), told


@pytest.mark.parametrize("change", CHANGES)
def test_arrays_are_checked_likewise(change: str):
    values = CHANGES[change](chest())
    scan = lungjax.scan_from_array(values, spacing_mm=chests.SPACING_MM)
    trained_on = input_checks.TrainedRange((1.0, 5.0), (0.5, 2.5))
    assert input_checks.refusal(scan, trained_on)
    assert input_checks.refusal(chests.scan(chest().astype(np.int16)), trained_on) is None


def test_the_offset_is_named(tmp_path: Path):
    values = CHANGES["1024 added, padding too"](chest())
    with pytest.raises(Fault, match=r"not_hu: .*perhaps 1024 was added"):
        hounsfield.check_scan(values, "it")


@pytest.mark.parametrize("suffix", ["nii.gz", "mhd"])
def test_nan_outside_the_field_is_padding(tmp_path: Path, suffix: str):
    hu = chest()
    rows, columns = np.mgrid[: hu.shape[1], : hu.shape[2]]
    outside = np.hypot(rows - 63.5, columns - 63.5) > 63
    expected = np.where(outside, hounsfield.FILL_HU, hu)
    hu[:, outside] = np.nan
    image = sitk.GetImageFromArray(hu.astype(np.float32))
    image.SetSpacing(chests.SPACING_MM[::-1])
    sitk.WriteImage(image, str(tmp_path / f"case.{suffix}"))
    (entry,), _ = read.find(tmp_path / f"case.{suffix}")
    scan = read.read(entry)
    np.testing.assert_array_equal(scan.voxels, expected)
    assert scan.padding_hu is not None
    assert scan.padding_hu >= hounsfield.FILL_HU
    assert [note.name for note in scan.notes] == ["not_a_number"]


def test_nan_within_the_field_is_a_fault():
    hu = chest()
    hu[10, 60, 60] = np.nan
    with pytest.raises(Fault, match=r"not_finite: .* NaN within the field of view"):
        hounsfield.fill_not_a_number(hu, "it")
    with pytest.raises(Fault, match=r"not_finite: .* nothing but NaN"):
        hounsfield.fill_not_a_number(np.full((3, 4, 5), np.nan), "it")


def test_real_scans_are_chests(real_data: Path):
    for folder in ("lidc-dicom/LIDC-IDRI/LIDC-IDRI-0003", "normal-dicom/normal001"):
        (entry,), _ = read.find(real_data / folder)
        hu = read.read(entry).voxels
        assert hounsfield.why_no_chest(hu) is None
        for change in ("1024 added", "1024 added, padding too", "1024 subtracted twice"):
            assert hounsfield.why_no_chest(CHANGES[change](hu.astype(np.int32))), (folder, change)
