"""Scans of people without nodules: every slice is prepared, none is marked, and only where the user says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import chests
import numpy as np
import pytest
import SimpleITK as sitk

from lungjax.data import shards
from lungjax.errors import InputError
from lungjax.preparation import sources
from lungjax.preparation.formats import unmarked
from lungjax.preparation.run import prepare


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    folder = tmp_path / "healthy"
    (folder / "more").mkdir(parents=True)
    image = sitk.GetImageFromArray(chests.chest(balls=()))
    image.SetSpacing(chests.SPACING_MM[::-1])
    sitk.WriteImage(image, str(folder / "first.nii.gz"))
    sitk.WriteImage(image, str(folder / "more" / "second.mhd"))
    (folder / "notes.txt").write_text("not a scan")
    return folder


def test_every_slice_is_kept_without_marks(volumes: Path, tmp_path: Path):
    prepare(volumes, tmp_path / "out", format="unmarked", workers=1)
    dataset = shards.open_dataset(tmp_path / "out")
    assert sorted(dataset.index["patient_id"].unique()) == ["first", "second"]
    assert len(dataset) == 2 * chests.SHAPE[0]
    assert dataset.index["readers_marked"].to_numpy().max() == 0
    assert dataset.index["lung_area_mm2"].to_numpy().max() > 1000
    assert (dataset.readers, dataset.intensity) == (4, "hu")
    images, marks = dataset.pixels(np.arange(chests.SHAPE[0]))
    np.testing.assert_array_equal(images, chests.chest(balls=()))
    assert not np.any(marks)


def test_it_is_never_detected_by_itself(volumes: Path):
    assert not unmarked.matches(volumes)
    assert sources.format_of(volumes, "unmarked") == "unmarked"
    assert sources.format_of(volumes, "auto") == "nifti"


def test_scans_of_lidc_are_quarantined(dicom: Path, tmp_path: Path):
    entries, quarantined = unmarked.find(dicom)
    assert entries == []
    assert {line.name for line in quarantined} == {"has_readers"}
    assert "whose readers' nodules are known" in quarantined[0].message


def test_a_file_alone_and_a_folder_without_scans(volumes: Path, tmp_path: Path):
    entries, _ = unmarked.find(volumes / "first.nii.gz")
    assert [entry.key for entry in entries] == ["first"]
    assert unmarked.read(entries[0]).nodules == ()
    shutil.rmtree(volumes / "more")
    (volumes / "first.nii.gz").unlink()
    with pytest.raises(InputError, match="holds no CT"):
        unmarked.find(volumes)
