"""LIDC-IDRI as Imaging Data Commons hands it out: its folders, its file names, and the series that others derived."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path

import pydicom
import pydicom.uid
import pytest

from lungjax import cli

SCANS = 2


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantom series in the folders that `lungjax phantom` makes; read-only."""
    folder = tmp_path_factory.mktemp("idc") / "phantom"
    assert cli.main(["phantom", "--scans", str(SCANS), "--matrix", "32", "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def idc(own: Path, tmp_path: Path) -> Path:
    """The same files as idc-index lays them out, by its default template:
    %collection_id/%PatientID/%StudyInstanceUID/%Modality_%SeriesInstanceUID.
    """
    for number, path in enumerate(sorted(own.rglob("*.dcm"))):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        series = f"{header.Modality}_{header.SeriesInstanceUID}"
        folder = tmp_path / "idc/lidc_idri" / header.PatientID / header.StudyInstanceUID / series
        folder.mkdir(parents=True, exist_ok=True)
        # The names are random, so their order is not that of the slices.
        shutil.copy(path, folder / f"{uuid.uuid5(uuid.NAMESPACE_OID, str(number))}.dcm")
    return tmp_path / "idc"


def _add_derived(idc: Path, modality: str) -> None:
    """A series that somebody derived from the first scan, in the folder that it gets."""
    first = min(idc.rglob("CT_*"))
    header = pydicom.dcmread(min(first.iterdir()))
    header.Modality, header.SeriesInstanceUID = modality, pydicom.uid.generate_uid(entropy_srcs=[modality])
    folder = first.parent / f"{modality}_{header.SeriesInstanceUID}"
    folder.mkdir()
    header.save_as(folder / "derived.dcm")


def _data(folder: Path) -> dict[str, bytes]:
    """All of a data set but its manifest, which names the source's folder."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_same_data_set_as_from_any_other_tree(own, idc, tmp_path):
    assert cli.main(["doctor", str(idc)]) == 0
    for source, out in ((own, "own"), (idc, "from-idc")):
        arguments = ["--source", str(source), "--out", str(tmp_path / out), "--workers", "1", "--strict"]
        assert cli.main(["prepare", *arguments]) == 0
    assert _data(tmp_path / "from-idc") == _data(tmp_path / "own")


@pytest.mark.parametrize("modality", ["SEG", "SR", "RTSTRUCT"])
def test_what_others_derived_is_listed_and_the_scans_are_prepared(idc, tmp_path, capsys, modality):
    _add_derived(idc, modality)
    assert cli.main(["doctor", str(idc), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["faults"] == []
    assert "derived" in [note["name"] for note in told["notes"]]
    assert told["scans"] == SCANS
    arguments = ["--source", str(idc), "--out", str(tmp_path / "out"), "--workers", "1", "--strict"]
    assert cli.main(["prepare", *arguments]) == 0
    (line,) = (tmp_path / "out/quarantine.jsonl").read_text().splitlines()
    assert json.loads(line)["name"] == "derived"
    assert f"{SCANS} scans" in capsys.readouterr().out
