"""Compressed series through `prepare`: the same data set as from plain files, or a fault that says what to install."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pydicom
import pytest
from preparing import contents
from pydicom.data import get_testdata_file
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    MPEG2MPML,
    UID,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from lungjax.ct import dicom_pixels
from lungjax.preparation import doctor
from lungjax.preparation.run import prepare

SYNTAXES = {"MR_small_jp2klossless.dcm": JPEG2000Lossless, "MR_small_jpeg_ls_lossless.dcm": JPEGLSLossless}
"""Images that come with pydicom, 64 x 64 signed 16 bits; `MR_small.dcm` is the same, not compressed."""
SYNTAXES |= {"MR_small_RLE.dcm": RLELossless}
SMALL = "LIDC-IDRI-0957"


@pytest.fixture
def row(rows):
    return next(row for row in rows if row.patient_id == SMALL)


def fill(paths: list[Path], name: str) -> None:
    """Puts the pixels of one of pydicom's own files into every image, as they are there."""
    image = pydicom.dcmread(str(get_testdata_file(name)))
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.PixelData = image.PixelData
        dataset["PixelData"].VR = "OB" if image.file_meta.TransferSyntaxUID.is_compressed else "OW"
        dataset.file_meta.TransferSyntaxUID = image.file_meta.TransferSyntaxUID
        pydicom.dcmwrite(path, dataset)


def test_rle_makes_the_same_data_set(row, write_scan, tmp_path: Path):
    source = tmp_path / "a/source"
    paths = write_scan(source, row, matrix=32)
    prepare(source, tmp_path / "plain", workers=1)
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless, generate_instance_uid=False)
        dataset.save_as(path)
    assert pydicom.dcmread(paths[0]).file_meta.TransferSyntaxUID == RLELossless
    assert doctor.examine(source).faults == ()
    prepare(source, tmp_path / "packed", workers=1)
    assert contents(tmp_path / "packed") == contents(tmp_path / "plain")


@pytest.mark.parametrize("name", SYNTAXES)
def test_images_of_other_encoders_make_the_same_data_set(row, write_scan, tmp_path: Path, name: str):
    if not get_decoder(SYNTAXES[name]).is_available:
        pytest.skip(f"nothing installed decodes {SYNTAXES[name].name}: `pip install 'lungjax[compressed]'`")
    paths = write_scan(tmp_path / "source", row, matrix=64)
    for file, out in (("MR_small.dcm", "plain"), (name, "packed")):
        fill(paths, file)
        assert doctor.examine(tmp_path / "source").faults == ()
        prepare(tmp_path / "source", tmp_path / out, workers=1)
    assert contents(tmp_path / "packed") == contents(tmp_path / "plain")


@pytest.mark.parametrize("name", ["JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless", "RLELossless"])
def test_what_gdcm_compresses_makes_the_same_data_set(row, write_scan, tmp_path: Path, name: str):
    reason = "GDCM, which `pip install 'lungjax[compressed]'` brings, is not installed"
    gdcm = pytest.importorskip("gdcm", reason=reason)
    paths = write_scan(tmp_path / "source", row, matrix=32)
    prepare(tmp_path / "source", tmp_path / "plain", workers=1)
    for path in paths:
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, name)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID.is_compressed
    assert doctor.examine(tmp_path / "source").faults == ()
    prepare(tmp_path / "source", tmp_path / "packed", workers=1)
    assert contents(tmp_path / "packed") == contents(tmp_path / "plain")


@pytest.mark.parametrize(
    ("syntax", "what_helps"),
    [
        (JPEGLosslessSV1, "pip install 'lungjax[compressed]'"),
        (JPEGLSLossless, "pip install 'lungjax[compressed]'"),
        (JPEG2000Lossless, "pip install 'lungjax[compressed]'"),
        (HTJ2KLossless, "pip install pylibjpeg pylibjpeg-openjpeg"),
        (MPEG2MPML, "decompress it first"),
    ],
)
def test_without_a_decoder(
    rows, row, write_scan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: UID, what_helps: str
):
    """One series in a syntax that nothing installed decodes, whatever is installed here."""
    write_scan(tmp_path / "source/whole", next(one for one in rows if one.patient_id == "LIDC-IDRI-0078"), matrix=16)
    paths = write_scan(tmp_path / "source/packed", row, matrix=64)
    fill(paths, "MR_small_RLE.dcm")
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(path, dataset)
    has_decoder = dicom_pixels._has_decoder
    monkeypatch.setattr(dicom_pixels, "_has_decoder", lambda one: one != syntax and has_decoder(one))
    found = {fault.name for fault in doctor.examine(tmp_path / "source").faults}
    prepare(tmp_path / "source", tmp_path / "out", workers=1)
    (line,) = map(json.loads, (tmp_path / "out/quarantine.jsonl").read_text().splitlines())
    assert (found, line["name"]) == ({"no_decoder"}, "no_decoder")
    assert syntax.name in line["message"]
    assert what_helps in line["message"]


def test_broken_compressed_pixels(rows, row, write_scan, tmp_path: Path):
    """Cut files show in the headers; damage within a frame only when it is decoded."""
    source = tmp_path / "source"
    write_scan(source / "whole", next(one for one in rows if one.patient_id == "LIDC-IDRI-0078"), matrix=16)
    paths = write_scan(source / "packed", row, matrix=64)
    fill(paths, "MR_small_RLE.dcm")
    shutil.copy(paths[3], tmp_path / "kept")
    content = paths[3].read_bytes()
    for damaged, in_header in ((content[:-900], True), (content[:-5000] + bytes(4000) + content[-1000:], False)):
        paths[3].write_bytes(damaged)
        found = [fault.name for fault in doctor.examine(source).faults]
        assert found == (["unreadable_file"] if in_header else [])
        prepare(source, tmp_path / f"out-{in_header}", workers=1)
        (line,) = map(json.loads, (tmp_path / f"out-{in_header}/quarantine.jsonl").read_text().splitlines())
        assert (line["name"], paths[3].name in line["message"]) == ("unreadable_file", True)
