"""NumPy slices of LIDC-IDRI-Preprocessing: one slice for each image, nodules apart, nothing executed."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest

from lungjax.data import shards
from lungjax.lidc.formats import jaeho_npy
from lungjax.lidc.prepare import prepare
from lungjax.lidc.scan import Fault, InputError

SIDE_PX = 16


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def write(root: Path, *, prefixed: bool = True) -> dict[tuple[int, int], np.ndarray]:
    """Patient 0001: nodule 0 of three slices, nodule 1 of two, the first of which is nodule 0's last.

    Patient 0028 is clean. Returns the masks of 0001 by nodule and slice.
    """
    rng = np.random.default_rng(0)
    images = rng.normal(size=(4, SIDE_PX, SIDE_PX))
    masks = {}

    def folder(patient: str) -> str:
        return f"LIDC-IDRI-{patient}/" if prefixed else ""

    for nodule, number, image in ((0, 0, 0), (0, 1, 1), (0, 2, 2), (1, 0, 2), (1, 1, 3)):
        mask = np.zeros((SIDE_PX, SIDE_PX), bool)
        mask[2 + 6 * nodule : 5 + 6 * nodule, 3 : 5 + number] = True
        masks[nodule, number] = mask
        save(root / f"Image/{folder('0001')}0001_NI{nodule:03}_slice{number:03}.npy", images[image])
        save(root / f"Mask/{folder('0001')}0001_MA{nodule:03}_slice{number:03}.npy", mask)
    for number in range(2):
        save(root / f"Clean/Image/{folder('0028')}0028_CN001_slice{number:03}.npy", rng.normal(size=(SIDE_PX, SIDE_PX)))
        save(root / f"Clean/Mask/{folder('0028')}0028_CM001_slice{number:03}.npy", np.zeros((SIDE_PX, SIDE_PX), bool))
    (root / "meta_info.csv").write_text("patient_id,data_split\n1,Train\n1,Test\n")
    return masks


@pytest.mark.parametrize("prefixed", [True, False])
@pytest.mark.parametrize("packed", [None, "zip", "tar"])
def test_the_same_image_is_one_slice(tmp_path, prefixed, packed):
    masks = write(tmp_path / "data", prefixed=prefixed)
    source = Path(shutil.make_archive(str(tmp_path / "x"), packed, tmp_path / "data")) if packed else tmp_path / "data"
    summary = prepare(source, tmp_path / "out", workers=1)
    assert (summary.scans, summary.slices, summary.quarantined) == (2, 6, {})
    dataset = shards.open_dataset(tmp_path / "out")
    assert dataset.manifest["source"]["format"] == "jaeho-npy"
    assert dataset.intensity == "zscore"
    assert [*dataset.manifest["split"]["patients"]] == ["LIDC-IDRI-0001", "LIDC-IDRI-0028"]
    records = dataset.read(range(6))
    both = masks[0, 2] | masks[1, 0]
    for record, mask in zip(records[:4], (masks[0, 0], masks[0, 1], both, masks[1, 1]), strict=True):
        np.testing.assert_array_equal(record.readers, mask.astype(np.uint8))
    assert [[nodule["index"] for nodule in record.nodules] for record in records] == [[0], [0], [0, 1], [1], [], []]
    prefix = "LIDC-IDRI-0001/" if prefixed else ""
    image = np.load(tmp_path / f"data/Image/{prefix}0001_NI001_slice001.npy")
    np.testing.assert_array_equal(records[3].image, image.astype(np.float32))


FILE = "Image/LIDC-IDRI-0001/0001_NI000_slice001.npy"
MASK = "Mask/LIDC-IDRI-0001/0001_MA000_slice001.npy"


def huge() -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f8", "fortran_order": False, "shape": (2**15, 2**15)})
    return out.getvalue() + bytes(80)


@pytest.mark.parametrize(
    ("spoil", "name", "says"),
    [
        (lambda root: (root / FILE).unlink(), "missing_image", "no image of slice 1 of nodule 0"),
        (lambda root: (root / MASK).unlink(), "missing_mask", "no mask of slice 1 of nodule 0"),
        (lambda root: np.save(root / MASK, np.zeros((3, 3), bool)), "mask_shape", "slice 1 of nodule 0 has a mask of"),
        (lambda root: np.save(root / FILE, np.full((SIDE_PX, SIDE_PX), np.nan)), "not_finite", "slice 1"),
        (lambda root: np.save(root / FILE, np.full((SIDE_PX, SIDE_PX), np.inf)), "not_finite", "slice 1"),
        (lambda root: np.save(root / FILE, np.full((SIDE_PX, SIDE_PX), -800.0)), "not_zscored", "no z-scores"),
        (lambda root: np.save(root / FILE, np.array([[{}]])), "unreadable_file", "object"),
        (lambda root: np.save(root / FILE, np.zeros(9)), "unreadable_file", "not a matrix"),
        (lambda root: (root / FILE).write_bytes(huge()), "unreadable_file", "not a matrix"),
        (lambda root: (root / FILE).write_bytes((root / FILE).read_bytes()[:-9]), "unreadable_file", "bytes for"),
        (lambda root: (root / FILE).write_bytes(b"\x93NUMPY\x01\x00\xff"), "unreadable_file", "cannot be read"),
        (lambda root: (root / FILE).write_bytes(b""), "unreadable_file", "cannot be read"),
        (
            lambda root: [np.save(root / one, np.zeros((8, 8), kind)) for one, kind in ((FILE, float), (MASK, bool))],
            "mixed_geometry",
            "the patient's first slice",
        ),
    ],
)
def test_faults_have_names(tmp_path, spoil, name, says):
    write(tmp_path)
    spoil(tmp_path)
    bad, good = jaeho_npy.find(tmp_path)[0]
    assert len(jaeho_npy.read(good).voxels) == 2
    with pytest.raises(Fault, match=says) as caught:
        jaeho_npy.read(bad)
    assert caught.value.name == name


def test_a_slice_in_two_places_is_quarantined(tmp_path):
    write(tmp_path / "data")
    shutil.copytree(tmp_path / "data", tmp_path / "data" / "copy")
    entries, quarantined = jaeho_npy.find(tmp_path / "data")
    assert entries == []
    assert [one.name for one in quarantined] == ["duplicate_positions"] * 2
    with pytest.raises(InputError, match="is there twice, in another folder"):
        prepare(tmp_path / "data", tmp_path / "out")
