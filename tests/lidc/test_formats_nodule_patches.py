"""Patches of nodules: pixels, ratings and medians as in the file, ordered by position, nothing executed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lungjax.data import loader, shards
from lungjax.lidc import annotations
from lungjax.lidc.formats import nodule_patches, slices
from lungjax.lidc.prepare import prepare
from lungjax.lidc.scan import RATING_NAMES, InputError

UIDS = ["1.2.9", annotations.all_scans()[5].series_uid]
NAMES = (*RATING_NAMES[::-1], "confidence")
"""In another order than ours, with one more."""


def content(**changes) -> dict[str, np.ndarray]:
    """Three nodules of a known series, the second the lowest; two of an unknown one."""
    rng = np.random.default_rng(0)
    ratings = rng.integers(1, 6, (5, 4, len(NAMES))).astype(np.int8)
    ratings[0, 2:] = 0
    ratings[4] = 0
    known = annotations.all_scans()[5].patient_id
    made = {
        "hu": rng.integers(-1000, 400, (5, 7, 7)).astype(np.int16),
        "patient_id": np.array([known] * 3 + ["SOMEONE"] * 2),
        "series_uid": np.array([UIDS[1]] * 3 + [UIDS[0]] * 2),
        "sop_uid": np.array([f"1.{n}" for n in range(5)]),
        "z_mm": np.array([10.0, -20.0, 10.0, 1.0, 2.0]),
        "pixel_spacing_mm": np.array([0.7] * 3 + [0.5] * 2),
        "reader_ratings": ratings,
        "rating_names": np.array(NAMES),
    }
    return {**made, **changes}


def write(path: Path, **changes) -> Path:
    arrays = {key: value for key, value in content(**changes).items() if value is not None}
    np.savez_compressed(path, **arrays)  # pyright: ignore[reportArgumentType]
    return path


def test_patches_become_series(tmp_path):
    source = write(tmp_path / "x.npz")
    assert not slices.matches(source)
    summary = prepare(source, tmp_path / "out", workers=2)
    dataset = shards.open_dataset(tmp_path / "out", verify=True)
    assert (summary.scans, summary.slices, sum(summary.patients.values())) == (2, 5, 2)
    assert dataset.manifest["source"]["format"] == "nodule-patches"
    assert dataset.intensity == "hu"
    wanted, index = content(), dataset.index
    for row, record in enumerate(dataset.read(range(5))):
        place = wanted["sop_uid"].tolist().index(record.sop_uid)
        np.testing.assert_array_equal(record.image, wanted["hu"][place])
        assert record.patient_id == wanted["patient_id"][place]
        assert record.z_mm == wanted["z_mm"][place]
        assert np.isnan(record.spacing_mm[0])
        assert record.spacing_mm[1:] == (wanted["pixel_spacing_mm"][place],) * 2
        rated = {reading["slot"]: reading["ratings"] for nodule in record.nodules for reading in nodule["readings"]}
        by_name = wanted["reader_ratings"][place][:, :-1][:, ::-1]  # NAMES are ours reversed, and one more.
        assert rated == {slot: tuple(one.tolist()) for slot, one in enumerate(by_name) if one.any()}
        malignancy = [one[RATING_NAMES.index("malignancy")] for one in rated.values()]
        median = index["malignancy_median"].iloc[row]
        assert median == np.median(malignancy) if malignancy else np.isnan(median)
        assert np.isnan(index["lung_area_mm2"].iloc[row])
    order = index.loc[index["series_uid"] == UIDS[1], "sop_uid"].tolist()
    assert order == ["1.1", "1.0", "1.2"]
    batch = loader.Slices(dataset, crop_px=0, crop_at="random").batch(np.arange(5))
    assert batch["image"].shape == (5, 7, 7)
    assert len(set(batch["scan"].tolist())) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hu": np.zeros((5, 7, 7), np.float32)}, "hu is float32"),
        ({"hu": np.zeros((5, 7), np.int16)}, "hu is int16"),
        ({"sop_uid": np.array(["1"] * 4)}, "sop_uid is"),
        ({"z_mm": np.zeros(5, int)}, "z_mm is int64"),
        ({"z_mm": np.full(5, np.nan)}, "z_mm or pixel_spacing_mm are not all numbers"),
        ({"pixel_spacing_mm": np.zeros(5)}, "z_mm or pixel_spacing_mm are not all numbers"),
        ({"rating_names": np.array(["a"] * 10)}, "rating_names has no calcification"),
        ({"reader_ratings": np.zeros((5, 3, 10), np.int8)}, "reader_ratings is int8"),
        ({"reader_ratings": np.full((5, 4, 10), 7, np.int8)}, "reader_ratings is int8"),
        ({"patient_id": np.array(list("ABCDE"))}, "the series 1.2.9 is of D and of E"),
        ({"sop_uid": None}, "it has no sop_uid"),
    ],
)
def test_another_layout_is_one_sentence(tmp_path, change, says):
    source = write(tmp_path / "x.npz", **change)
    with pytest.raises(InputError, match=f"laid out otherwise than patches of nodules: {says}"):
        prepare(source, tmp_path / "out", format="nodule-patches")


def test_objects_and_damage_are_one_sentence(tmp_path):
    objects = write(tmp_path / "x.npz", sop_uid=np.array([{}] * 5, object))
    with pytest.raises(InputError, match=r"x\.npz cannot be read as \.npz \(Object arrays cannot be loaded"):
        prepare(objects, tmp_path / "out")
    cut = write(tmp_path / "y.npz")
    cut.write_bytes(cut.read_bytes()[:1000])
    assert not nodule_patches.matches(cut)
    with pytest.raises(InputError, match=r"y\.npz cannot be read as \.npz"):
        prepare(cut, tmp_path / "out", format="nodule-patches")


def test_the_real_patches(real_data, tmp_path):
    prepare(real_data / "lidc-nodules.npz", tmp_path / "out")
    dataset = shards.open_dataset(tmp_path / "out")
    counts = dataset.manifest["counts"]
    assert (counts["slices"], counts["patients"], counts["nodules"]) == (2171, 690, 2171)
    with np.load(real_data / "lidc-nodules.npz") as file:
        source = {key: file[key] for key in file.files}
    column = source["rating_names"].tolist().index("malignancy")
    given = np.where(source["reader_ratings"][..., column] > 0, source["reader_ratings"][..., column], np.nan)
    keys = list(zip(source["patient_id"], source["series_uid"], source["z_mm"], range(2171), strict=True))
    for row, (record, key) in enumerate(zip(dataset.read(range(2171)), sorted(keys), strict=True)):
        place = key[-1]
        assert record.sop_uid == source["sop_uid"][place]
        np.testing.assert_array_equal(record.image, source["hu"][place])
        assert record.patient_id == source["patient_id"][place]
        rated = [reading["ratings"] for nodule in record.nodules for reading in nodule["readings"]]
        assert rated == [tuple(one.tolist()) for one in source["reader_ratings"][place] if one.any()]
        values = given[place][~np.isnan(given[place])]
        median = dataset.index["malignancy_median"].iloc[row]
        assert median == np.median(values) if len(values) else np.isnan(median)
