"""Each fault made on files of its own: `doctor` names it from headers, and `prepare` quarantines by the same name."""

from __future__ import annotations

import collections
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hostile import opened_files
from pydicom.encaps import encapsulate
from pydicom.uid import MPEG2MPML

from lungjax import cli
from lungjax.ct import dicom_pixels, faults
from lungjax.data import shards
from lungjax.lidc.annotations import ScanRow
from lungjax.preparation import doctor
from lungjax.preparation.run import prepare

WHOLE, BROKEN = "LIDC-IDRI-0957", "LIDC-IDRI-0078"
UNEVEN_ID = 520
"""Of this scan's images LIDC itself lacks some."""
MATRIX = 16

Breaks = Callable[[list[Path]], object]


def row_of(rows: list[ScanRow], patient_id: str) -> ScanRow:
    return next(row for row in rows if row.patient_id == patient_id)


def edit(path: Path, **tags) -> None:
    """Sets tags of a file; None deletes one."""
    dataset = pydicom.dcmread(path)
    for name, value in tags.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    pydicom.dcmwrite(path, dataset)


def cut(path: Path, left: int) -> None:
    path.write_bytes(path.read_bytes()[:left])


def as_video(path: Path) -> None:
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = MPEG2MPML
    dataset.PixelData = encapsulate([bytes(100)])
    dataset["PixelData"].VR = "OB"
    pydicom.dcmwrite(path, dataset)


def scaled(path: Path, rows: float, columns: float) -> None:
    spacing_mm = pydicom.dcmread(path).PixelSpacing
    edit(path, PixelSpacing=[round(spacing_mm[0] * rows, 6), round(spacing_mm[1] * columns, 6)])


def tilted(degrees: float) -> list[float]:
    angle = math.radians(degrees)
    return [1, 0, 0, 0, round(math.cos(angle), 6), round(math.sin(angle), 6)]


def each(change: Callable[[Path], None]) -> Breaks:
    return lambda paths: [change(path) for path in paths]


FILES: dict[str, tuple[str, Breaks]] = {
    "first slice gone": ("incomplete_series", lambda paths: paths[0].unlink()),
    "gap": ("incomplete_series", lambda paths: paths[9].unlink()),
    "cut in its pixels": ("unreadable_file", lambda paths: cut(paths[3], -9)),
    "cut in its header": ("unreadable_file", lambda paths: cut(paths[3], 700)),
    "fewer pixels": ("short_pixels", lambda paths: edit(paths[3], PixelData=bytes(2 * MATRIX * (MATRIX - 1)))),
    "no slope": ("missing_tag", lambda paths: edit(paths[3], RescaleSlope=None)),
    "no position": ("missing_tag", lambda paths: edit(paths[3], ImagePositionPatient=None)),
    "slope 0": ("wrong_rescale", lambda paths: edit(paths[3], RescaleSlope=0)),
    "negative slope": ("wrong_rescale", lambda paths: edit(paths[3], RescaleSlope=-1)),
    "no air": ("wrong_rescale", lambda paths: edit(paths[3], RescaleIntercept=40000)),
    "no tissue": ("wrong_rescale", lambda paths: edit(paths[3], RescaleIntercept=-40000)),
    "unsigned from 0": ("wrong_rescale", lambda paths: edit(paths[3], PixelRepresentation=0, RescaleIntercept=0)),
    "a video": ("no_decoder", lambda paths: as_video(paths[3])),
    "one wider": ("mixed_geometry", lambda paths: scaled(paths[3], 1.1, 1.1)),
    "beside": ("mixed_geometry", lambda paths: edit(paths[3], ImagePositionPatient=beside(paths[3]))),
    "not square": ("non_square_pixels", each(lambda path: scaled(path, 1, 1.02))),
    "smaller field": ("matrix_mismatch", each(lambda path: scaled(path, 0.95, 0.95))),
    "tilted": ("oblique_orientation", each(lambda path: edit(path, ImageOrientationPatient=tilted(11)))),
}
"""What is done to the files of one series, and the fault that it is."""


def beside(path: Path) -> list[float]:
    left_mm, back_mm, z_mm = pydicom.dcmread(path).ImagePositionPatient
    return [left_mm + 100, back_mm, z_mm]


@pytest.fixture(scope="module")
def pair(rows, write_scan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sound series, `whole` and `broken`; read-only, for tests copy it."""
    root = tmp_path_factory.mktemp("pair")
    write_scan(root / "whole", row_of(rows, WHOLE), matrix=MATRIX)
    write_scan(root / "broken", row_of(rows, BROKEN), matrix=MATRIX)
    return root


@pytest.fixture
def source(pair: Path, tmp_path: Path) -> Path:
    """A copy of them."""
    return shutil.copytree(pair, tmp_path / "source")


def broken(source: Path) -> list[Path]:
    return sorted((source / "broken").iterdir())


def names_of(source: Path, out: Path) -> tuple[list[str], list[str]]:
    """Fault names that `doctor` gives, and those that `prepare` writes."""
    report = doctor.examine(source)
    prepare(source, out, workers=1)
    lines = (out / "quarantine.jsonl").read_text().splitlines()
    return sorted(one.name for one in report.faults), sorted(json.loads(line)["name"] for line in lines)


@pytest.mark.parametrize("case", FILES)
def test_a_broken_series_has_the_same_name_in_both(source: Path, tmp_path: Path, case: str):
    name, breaks = FILES[case]
    breaks(broken(source))
    assert names_of(source, tmp_path / "out") == ([name], [name])
    assert (doctor.examine(source).scans, name in faults.FAULTS) == (2, True)


def test_files_that_are_no_image_of_a_scan_are_left_out(source: Path, tmp_path: Path):
    paths = broken(source)
    shutil.copy(paths[3], paths[3].with_name("copy.dcm"))
    assert names_of(source, tmp_path / "out") == ([], ["left_out"])
    assert shards.open_dataset(tmp_path / "out").manifest["counts"]["scans"] == 2
    edit(paths[5], Modality="DX")  # Without it, a slice is missing.
    short, left_out = "incomplete_series", ["left_out", "left_out"]
    assert names_of(source, tmp_path / "again") == ([short], [short, *left_out])


def test_a_sound_tree_has_none(source: Path, tmp_path: Path):
    """Also where axes are turned a little, as long as every slice is at its place."""
    each(lambda path: edit(path, ImageOrientationPatient=[0.999, 0.045, 0, -0.045, 0.999, 0]))(broken(source))
    assert names_of(source, tmp_path / "out") == ([], [])


def test_what_is_no_scan_has_the_same_name_in_both(rows, write_scan, write_ct, source: Path, tmp_path: Path):
    """Everything at once: a series of LIDC-IDRI that is uneven in itself, which is no fault, and files of no CT."""
    stored = np.zeros((2, 4, 4), np.int16)
    write_scan(source / "uneven", rows[UNEVEN_ID - 1], matrix=MATRIX)
    write_ct(source / "magnet", stored, series_uid="1.2.1", tags={"Modality": "MR"})
    write_ct(source / "other", stored, series_uid="1.2.2")
    write_ct(source / "nameless", stored[:1], tags={"SeriesInstanceUID": None})
    (source / "empty.dcm").touch()
    (tmp_path / "elsewhere").mkdir()
    (source / "linked").symlink_to(tmp_path / "elsewhere")
    expected = ["link", "missing_tag", "not_ct", "not_in_database", "unreadable_file"]
    assert names_of(source, tmp_path / "out") == (expected, expected)
    assert "uneven_in_lidc" in {note.name for note in doctor.examine(source).notes}


def test_x_rays_beside_the_ct_are_no_fault(source: Path, write_ct, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A whole LIDC-IDRI has such series: listed, counted, and no reason for an exit code."""
    for number, modality in enumerate(("DX", "CR"), 1):
        stored = np.zeros((1, 4, 4), np.int16)
        write_ct(source / modality, stored, series_uid=f"1.2.{number}", tags={"Modality": modality})
    assert cli.main(["doctor", str(source), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    notes = [(note["name"], note["where"]) for note in found["notes"] if note["name"] == "x_ray"]
    assert (found["faults"], notes) == ([], [("x_ray", str(source / "DX")), ("x_ray", str(source / "CR"))])
    arguments = ["prepare", "--source", str(source), "--out", str(tmp_path / "out"), "--workers", "1", "--strict"]
    assert cli.main(arguments) == 0
    said = capsys.readouterr().out
    assert f"skipped: 2 (2 x_ray); see {tmp_path / 'out/quarantine.jsonl'}" in said
    assert "quarantined" not in said
    lines = (tmp_path / "out/quarantine.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["x_ray", "x_ray"]
    assert cli.main(arguments) == 0  # Also where it is complete already.
    assert "skipped: 2" in capsys.readouterr().out


@pytest.mark.parametrize("modality", ["MR", "", "DX"])
def test_a_ct_series_that_says_it_is_none_is_a_fault(source: Path, tmp_path: Path, modality: str):
    """By its UID it is one that the readers outlined, or its modality is none that LIDC-IDRI has."""
    each(lambda path: edit(path, Modality=modality))(broken(source))
    assert names_of(source, tmp_path / "out") == (["not_ct"], ["not_ct"])


def test_each_sound_file_is_read_once_but_for_a_few_planes(source: Path):
    with opened_files() as opened:
        assert doctor.examine(source, format="lidc").faults == ()
    times = collections.Counter(path for path in opened if path.endswith(".dcm"))
    assert set(times) == set(map(str, source.glob("*/*.dcm")))
    again = [path for path, count in times.items() if count > 1]
    assert {times[path] for path in again} == {2}
    assert 0 < len(again) < len(times) / 4


def test_a_link_back_to_the_tree_ends(source: Path, tmp_path: Path):
    paths = broken(source)
    paths[5].rename(tmp_path / "kept-elsewhere")
    paths[5].symlink_to(tmp_path / "kept-elsewhere")  # A link to a file is a file.
    (source / "broken/again").symlink_to(source)
    assert names_of(source, tmp_path / "out") == (["link"], ["link"])
    (fault,) = doctor.examine(source).faults
    assert (fault.where, fault.where in fault.message) == (str(source / "broken/again"), True)


def test_a_closed_folder_is_named(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (source / "closed").mkdir()
    scandir = os.scandir

    def refusing(path):
        if str(path) == str(source / "closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert names_of(source, tmp_path / "out") == (["unreadable_folder"], ["unreadable_folder"])


@pytest.mark.parametrize(
    ("name", "tags", "value"),
    [
        ("hu_out_of_range", {"RescaleSlope": 20}, 3000),
        ("wrong_rescale", {}, 1000),  # -24 HU everywhere: no air
        ("wrong_rescale", {}, 100),  # -924 HU everywhere: nothing but air
    ],
)
def test_what_only_voxels_tell(source: Path, tmp_path: Path, name: str, tags: dict, value: int):
    held = np.full(MATRIX**2, value, "<i2").tobytes()
    each(lambda path: edit(path, PixelData=held, **tags))(broken(source))
    assert names_of(source, tmp_path / "out") == ([name], [name])
    assert name in faults.IN_VOXELS  # For doctor looks at a few planes.
    assert name in doctor.examine(source).text().splitlines()[-1]


def test_every_broken_file_is_told_and_the_first_is_why(source: Path, tmp_path: Path):
    paths = broken(source)
    edit(paths[2], RescaleSlope=None)
    cut(paths[7], -1)
    found, quarantined = names_of(source, tmp_path / "out")
    assert (found, quarantined) == (["missing_tag", "unreadable_file"], ["missing_tag"])
    messages = [one.message for one in doctor.examine(source).faults]
    assert [path.name in message for path, message in zip((paths[2], paths[7]), messages, strict=True)] == [True, True]


def test_few_planes_are_read(pair: Path, monkeypatch: pytest.MonkeyPatch):
    read_hu, planes = dicom_pixels.read_hu, []
    monkeypatch.setattr(dicom_pixels, "read_hu", lambda *given: planes.append(given) or read_hu(*given))
    assert doctor.examine(pair).faults == ()
    assert 0 < len(planes) < len(list(pair.rglob("*.dcm"))) / 4


def test_real_tree(real_data: Path, capsys: pytest.CaptureFixture[str]):
    """LIDC-IDRI-0003 is whole; of LIDC-IDRI-0001 the download broke off after 17 of 133 slices."""
    source = str(real_data / "lidc-dicom")
    assert cli.main(["doctor", source, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["format"], found["patients"], found["scans"], found["slices"]) == ("lidc", 2, 2, 157)
    assert len(found["missing_patients"]) == 1008
    assert not {"LIDC-IDRI-0001", "LIDC-IDRI-0003"} & {*found["missing_patients"]}
    (fault,) = found["faults"]
    assert (fault["name"], "LIDC-IDRI-0001" in fault["where"]) == ("incomplete_series", True)
    assert "17 of 133 slices" in fault["message"]
    assert {note["name"] for note in found["notes"]} == {"padding", "ambiguous_cluster"}
    assert cli.main(["doctor", source]) == 1
    text = capsys.readouterr().out
    assert "1,008 of LIDC-IDRI's patients are missing: LIDC-IDRI-0002, 0004 to " in text
    assert "LIDC-IDRI-0001: " in text
