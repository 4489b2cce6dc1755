"""What the user says of a source: which labels are nodules, whether no label map means none, whose scans they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import chests
import numpy as np
import pytest
import SimpleITK as sitk
import source_files

import lungjax
from lungjax import cli
from lungjax.data import manifest, shards
from lungjax.errors import InputError
from lungjax.preparation import doctor, sources
from lungjax.preparation.choices import Choices

ORGANS, NODULE = 2, 7


def write(path: Path, values: np.ndarray) -> None:
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(chests.SPACING_MM[::-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def marks(*, organs: bool) -> np.ndarray:
    """The lungs as an organ, and a ball in each as a nodule."""
    hu = chests.chest()
    label = np.zeros(hu.shape, np.uint8)
    if organs:
        label[hu == chests.LUNG_HU] = ORGANS
    for ball in chests.BALLS:
        label[chests.ball(*ball)] = NODULE
    return label


def cases(folder: Path, *names: str, unlabelled: tuple[str, ...] = (), organs: bool = False) -> Path:
    for name in (*names, *unlabelled):
        write(folder / f"{name}.nii.gz", chests.chest())
        if name not in unlabelled:
            write(folder / f"{name}_label.nii.gz", marks(organs=organs))
    return folder


def prepared(source: Path, out: Path, **choices: Any) -> tuple[dict[str, list[str]], dict[str, str]]:
    """The series of each patient, and what is not prepared."""
    lungjax.prepare(source, out, workers=1, **choices)
    index = shards.open_dataset(out).index
    lines = map(json.loads, (out / manifest.QUARANTINE).read_text().splitlines())
    series = index.groupby("patient_id")["series_uid"].unique()
    return {str(patient): sorted(uids) for patient, uids in series.items()}, {
        line["key"]: line["name"] for line in lines
    }


def test_organs_are_no_nodules(tmp_path: Path):
    source = cases(tmp_path / "source", "a", organs=True)
    with pytest.raises(InputError, match=r"marks .* ml in one piece, as much as an organ; say by --label"):
        lungjax.prepare(source, tmp_path / "out", workers=1)
    lungjax.prepare(source, tmp_path / "out", workers=1, labels=[NODULE], overwrite=True)
    dataset = shards.open_dataset(tmp_path / "out")
    assert dataset.manifest["counts"]["nodules"] == len(chests.BALLS)
    records = dataset.read(np.arange(len(dataset.index)))
    np.testing.assert_array_equal(np.stack([one.readers for one in records]) > 0, marks(organs=False) > 0)


def test_a_case_without_a_map_is_left_out_unless_it_is_empty(tmp_path: Path):
    source = cases(tmp_path / "source", "a", "b", unlabelled=("c",))
    assert prepared(source, tmp_path / "out") == ({"a": ["a"], "b": ["b"]}, {"c": "missing_mask"})
    assert {one.name for one in doctor.examine(source).faults} == {"missing_mask"}
    patients, left_out = prepared(source, tmp_path / "empty", unlabelled_is_empty=True)
    assert (set(patients), left_out) == ({"a", "b", "c"}, {})
    assert doctor.examine(source, choices=Choices(unlabelled_is_empty=True)).faults == ()


def test_cases_without_any_map_are_for_pretraining_and_never_scored(tmp_path: Path):
    source = cases(tmp_path / "source", unlabelled=("a", "b"))
    assert len(sources.find("nifti", source)[0]) == 2
    entries, left_out = sources.find("nifti", source, scored=True)
    assert (entries, {one.name for one in left_out}) == ([], {"missing_mask"})
    assert len(sources.find("nifti", source, Choices(unlabelled_is_empty=True), scored=True)[0]) == 2


def test_sessions_of_a_person_are_one_patient(tmp_path: Path):
    source = cases(tmp_path / "source", "sub-01_ses-1_ct", "sub-01_ses-2_ct", "sub-02", "subject-01_ct")
    patients, _ = prepared(source, tmp_path / "out")
    assert patients == {
        "sub-01": ["sub-01_ses-1_ct", "sub-01_ses-2_ct"],
        "sub-02": ["sub-02"],
        "subject-01_ct": ["subject-01_ct"],
    }


@pytest.mark.parametrize("text", ["case,patient\na,P\nb,P\nc,Q\n", "\ufeffPatient;Age;CASE\nP;70;a\nP;71;b\nQ;;c\n"])
def test_a_table_names_patients(tmp_path: Path, text: str):
    source = cases(tmp_path / "source", "a", "b", "c", "d")
    (tmp_path / "table.csv").write_text(text)
    patients, left_out = prepared(source, tmp_path / "out", patients=tmp_path / "table.csv")
    assert (patients, left_out) == ({"P": ["a", "b"], "Q": ["c"]}, {"d": "not_in_table"})


def test_a_table_names_the_patients_of_anonymous_dicom(tmp_path: Path):
    stored = (chests.chest() + 1024).astype(np.int16)
    for uid in ("1.2.1", "1.2.2"):
        tags = {"PatientID": None, "PixelSpacing": [2.5, 2.5]}
        source_files.write_ct(tmp_path / "source" / uid, stored, series_uid=uid, tags=tags)
    (tmp_path / "table.csv").write_text("case,patient\n1.2.1,P\n1.2.2,P\n")
    table = {"format": "unmarked", "patients": tmp_path / "table.csv"}
    assert prepared(tmp_path / "source", tmp_path / "out", **table) == ({"P": ["1.2.1", "1.2.2"]}, {})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,P\n", "has no column 'case'; it has a, p, and needs case, patient"),
        ("case,patient\na,P\na,Q\n", "names P and Q for the case a"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path: Path, text: str, says: str, capsys: pytest.CaptureFixture[str]):
    source = cases(tmp_path / "source", "a")
    (tmp_path / "table.csv").write_text(text)
    arguments = ["prepare", "--source", str(source), "--out", str(tmp_path / "out")]
    assert cli.main([*arguments, "--patients", str(tmp_path / "table.csv")]) == 2
    assert says in capsys.readouterr().err


def test_choices_of_other_formats_are_refused(kaggle_tree: Path, tmp_path: Path):
    refused: list[tuple[dict[str, Any], str]] = [
        ({"labels": [1]}, "--label and"),
        ({"patients": tmp_path / "t.csv"}, "--patients is for"),
    ]
    for choices, says in refused:
        with pytest.raises(InputError, match=says):
            lungjax.prepare(kaggle_tree, tmp_path / "out", workers=1, **choices)
