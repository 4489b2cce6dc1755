"""No patient lies in two splits, and one and the same split is a patient's on every source."""

from __future__ import annotations

import hashlib
import itertools
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import source_files

from lungjax.ct.scan import RATING_NAMES, Scan
from lungjax.data import shards, splits
from lungjax.lidc import annotations
from lungjax.lidc.annotations import ScanRow
from lungjax.preparation.formats import lidc
from lungjax.preparation.run import prepare
from lungjax.preparation.sources import FORMATS

PATIENTS = ("LIDC-IDRI-0003", "LIDC-IDRI-0365", "LIDC-IDRI-0957", "LIDC-IDRI-0983")
"""Of all three splits; 0365 has two scans, 0003 is test whatever its hash says."""
MATRIX = 32
KNOWN = [name for name, module in FORMATS.items() if module.HAS_PATIENT_IDS and name != "unmarked"]  # It has no LIDC.
"""Formats that record patients; data of others are never mixed with these (see test_formats_prob_unet.py)."""


@pytest.fixture(scope="module")
def rows() -> list[ScanRow]:
    return [row for row in annotations.all_scans() if row.patient_id in PATIENTS]


@pytest.fixture(scope="module")
def dicom(rows: list[ScanRow], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lidc")
    for row in rows:
        source_files.write_scan(root / row.series_uid, row, matrix=MATRIX)
    return root


@pytest.fixture(scope="module")
def scans(dicom: Path) -> list[Scan]:
    return [lidc.read(entry) for entry in lidc.find(dicom)[0]]


@pytest.fixture(scope="module")
def prepared(
    rows: list[ScanRow],
    dicom: Path,
    scans: list[Scan],
    kaggle_tree: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, shards.Dataset]:
    """The same patients, prepared from each format."""
    root = tmp_path_factory.mktemp("sources")

    def slices() -> Path:
        crops = sorted((kaggle_tree / "LIDC-IDRI-slices").iterdir())
        for patient_id, crop in zip(PATIENTS, crops, strict=False):
            shutil.copytree(crop, root / "slices" / patient_id)
        return root / "slices"

    def jaeho() -> Path:
        for row in rows:
            for kind, what in (("Image", "NI"), ("Mask", "MA")):
                (root / "jaeho" / kind).mkdir(parents=True, exist_ok=True)
                np.save(root / "jaeho" / kind / f"{row.patient_id[-4:]}_{what}000_slice000.npy", np.ones((8, 8)))
        return root / "jaeho"

    def luna16() -> Path:
        for scan in scans:
            source_files.write_luna16(root / "luna16", scan.series_uid, source_files.luna16_image(scan))
        return root / "luna16"

    def nifti() -> Path:
        (root / "nifti").mkdir()
        for scan in scans:  # One volume a patient: of two, the later.
            sitk.WriteImage(source_files.luna16_image(scan), str(root / "nifti" / f"{scan.patient_id}.nii"))
        return root / "nifti"

    def prob_unet() -> Path:
        blank = {"image": np.zeros((8, 8)), "masks": [np.zeros((8, 8), np.uint8)] * 4}
        records = {f"{row.scan_id}_slice0": {**blank, "series_uid": row.series_uid} for row in rows}
        (root / "data_lidc.pickle").write_bytes(pickle.dumps(records))
        return root / "data_lidc.pickle"

    def patches() -> Path:
        one = np.ones(len(rows))
        np.savez(
            root / "nodules.npz",
            hu=np.zeros((len(rows), 8, 8), np.int16),
            patient_id=np.array([row.patient_id for row in rows]),
            series_uid=np.array([row.series_uid for row in rows]),
            sop_uid=np.array(["1"] * len(rows)),
            z_mm=one,
            pixel_spacing_mm=one,
            reader_ratings=np.ones((len(rows), 4, 9), np.int8),
            rating_names=np.array(RATING_NAMES),
        )
        return root / "nodules.npz"

    made: dict[str, Callable[[], Path]] = {
        "lidc": lambda: dicom,
        "slices": slices,
        "lungd-png": lambda: source_files.write_lungd_png(root / "lungd-png", rows),
        "jaeho-npy": jaeho,
        "luna16": luna16,
        "nifti": nifti,
        "prob-unet-pickle": prob_unet,
        "nodule-patches": patches,
    }
    assert [*made] == KNOWN, "a new format needs a source here"
    opened = {}
    for name, make in made.items():
        summary = prepare(make(), root / "prepared" / name, workers=1)
        assert summary.quarantined == {}
        opened[name] = shards.open_dataset(summary.out)
        assert opened[name].manifest["source"]["format"] == name
    return opened


@pytest.mark.parametrize("name", KNOWN)
def test_each_source_puts_its_patients_where_their_hash_says(prepared: dict[str, shards.Dataset], name: str):
    """A second implementation of the hash; index and manifest agree, and no patient has slices in two splits."""

    def position(patient_id: str) -> float:
        return int(hashlib.sha256(b"lungjax-1/" + patient_id.encode()).hexdigest()[:16], 16) / 16**16

    by_hash = {p: "train" if position(p) < 0.7 else "val" if position(p) < 0.8 else "test" for p in PATIENTS}
    assert by_hash["LIDC-IDRI-0003"] != "test"
    expected = {**by_hash, "LIDC-IDRI-0003": "test"}
    assert set(expected.values()) == set(splits.SPLITS)

    split = prepared[name].manifest["split"]
    assert split["patients"] == expected
    pairs = prepared[name].index[["patient_id", "split"]].drop_duplicates()
    assert dict(pairs.itertuples(index=False)) == expected
    assert len(pairs) == len(PATIENTS)


def test_any_two_sources_agree(prepared: dict[str, shards.Dataset]):
    """What was trained on one source may be tested on any other: the leak lock is open, the digests are equal."""
    for one, other in itertools.permutations(prepared.values(), 2):
        ours, theirs = one.manifest["split"], other.manifest["split"]
        assert ours["digest"] == theirs["digest"]
        splits.lock(ours["patients"], theirs["patients"], where=str(other.path))
