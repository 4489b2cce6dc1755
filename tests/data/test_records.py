"""Records: lossless on any image, compact on CT, refused when damaged."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from lungjax.data import records, shards
from lungjax.data.records import SliceRecord
from lungjax.errors import InputError


def make_record(image: np.ndarray, readers: np.ndarray | None = None, **changes) -> SliceRecord:
    ratings = (5, 1, 6, 4, 4, 1, 2, 5, 3)
    reading = {"slot": 1, "annotation_id": 77, "ratings": ratings, "box": (0, 0, 0, 0)}
    fields = {
        "image": image,
        "readers": np.zeros(image.shape, np.uint8) if readers is None else readers,
        "patient_id": "LIDC-IDRI-0001",
        "study_uid": "1.2",
        "series_uid": "1.2.3",
        "sop_uid": "1.2.3.4",
        "slice_index": 7,
        "z_mm": -123.4567890123,
        "spacing_mm": (2.5, 0.703125, 0.703125),
        "padding_hu": -2000,
        "intensity": {"int16": "hu", "uint8": "unit", "float32": "fraction"}[image.dtype.name],
        "nodules": ({"index": 2, "readings": (reading, {**reading, "slot": 3, "box": None})},),
    }
    return SliceRecord(**{**fields, **changes})


def assert_same(got: SliceRecord, wanted: SliceRecord) -> None:
    for field in dataclasses.fields(SliceRecord):
        left, right = getattr(got, field.name), getattr(wanted, field.name)
        if isinstance(right, np.ndarray):
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)
            assert left.tobytes() == right.tobytes()  # A float's bits too: which NaN, which zero.
        else:
            assert left == right, field.name
            assert type(left) is type(right), field.name


shapes = npst.array_shapes(min_dims=2, max_dims=2, max_side=9)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_any_record_comes_back_bit_for_bit(data):
    dtype = data.draw(st.sampled_from([np.int16, np.uint8, np.float32]))
    image = data.draw(npst.arrays(dtype, shapes))
    readers = data.draw(npst.arrays(np.uint8, image.shape))
    record = make_record(image, readers)
    encoded = records.encode(record)
    assert_same(records.decode(encoded), record)
    for got, wanted in zip(records.decode_pixels(encoded), (image, readers), strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert records.decode_nodules(encoded) == record.nodules


@pytest.mark.parametrize("dtype", [np.int16, np.uint8])
def test_extremes_wrap_around_and_back(dtype):
    ends = [np.iinfo(dtype).min, np.iinfo(dtype).max]
    image = np.array([ends * 3, ends[::-1] * 3], dtype)
    assert_same(records.decode(records.encode(make_record(image))), make_record(image))


def test_a_view_with_strides_is_taken_as_it_looks():
    image = np.arange(64, dtype=np.int16).reshape(8, 8)[::2, ::-1]
    assert_same(records.decode(records.encode(make_record(image))), make_record(image))


def test_what_the_source_lost_stays_lost():
    record = make_record(
        np.zeros((3, 4), np.uint8), z_mm=math.nan, spacing_mm=(math.nan,) * 3, padding_hu=None, sop_uid="", nodules=()
    )
    got = records.decode(records.encode(record))
    assert math.isnan(got.z_mm)
    assert all(math.isnan(value) for value in got.spacing_mm)
    assert (got.padding_hu, got.sop_uid, got.nodules) == (None, "", ())


def test_equal_records_give_equal_bytes():
    image = np.arange(12, dtype=np.int16).reshape(3, 4)
    assert records.encode(make_record(image)) == records.encode(make_record(image.copy()))


@pytest.mark.parametrize(
    ("image", "readers", "intensity", "says"),
    [
        (np.zeros((2, 2), np.float32), np.zeros((2, 2), np.uint8), "hu", "float32"),
        (np.zeros((2, 2), np.int16), np.zeros((2, 2), bool), "hu", "bool"),
        (np.zeros((2, 2), np.int16), np.zeros((2, 2), np.uint8), "unit", "int16"),
        (np.zeros((2, 3), np.int16), np.zeros((3, 2), np.uint8), "hu", r"\(2, 3\).*\(3, 2\)"),
        (np.zeros((2, 0), np.int16), np.zeros((2, 0), np.uint8), "hu", r"\(2, 0\)"),
    ],
)
def test_encode_refuses_what_is_no_slice(image, readers, intensity, says):
    with pytest.raises(ValueError, match=says):
        records.encode(make_record(image, readers, intensity=intensity))


def test_another_schema_version_is_one_sentence():
    fields = msgpack.unpackb(records.encode(make_record(np.zeros((2, 2), np.int16))))
    newer = msgpack.packb({**fields, "version": records.SCHEMA_VERSION + 1})
    for decode in (records.decode, records.decode_pixels):
        with pytest.raises(InputError, match=f"schema version {records.SCHEMA_VERSION + 1}, this lungjax reads"):
            decode(newer)  # pyright: ignore[reportArgumentType]


def damaged() -> list[bytes]:
    good = records.encode(make_record(np.ones((5, 5), np.int16), np.ones((5, 5), np.uint8)))
    fields = msgpack.unpackb(good)
    changes = [{"shape": [5, 6]}, {"image": b"12"}, {"readers": b"1"}, {"intensity": "loud"}, {"readers_box": [0, 9]}]
    without = {name: value for name, value in fields.items() if name != "image"}
    packed = [msgpack.packb(value) for value in ([], 3, without, *({**fields, **change} for change in changes))]
    return [b"", b"\xc1", good[:-9], b"garbage" * 9, *packed]  # pyright: ignore[reportReturnType]


@pytest.mark.parametrize("data", damaged())
def test_damaged_bytes_are_one_sentence(data):
    for decode in (records.decode, records.decode_pixels):
        with pytest.raises(InputError, match=r"damaged .*; prepare the data again"):
            decode(data)


def test_box_of_is_the_extremes_of_the_coordinates():
    mask = np.zeros((6, 9), np.uint8)
    assert records.box_of(mask) is None
    mask[2, 7] = mask[4, 3] = 1
    rows, columns = np.nonzero(mask)
    assert records.box_of(mask) == (rows.min(), rows.max(), columns.min(), columns.max())


def test_ct_like_images_shrink_and_open_fast(tmp_path: Path):
    """The size is that of a shard; the time is the unfiltering's own, on one core."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:512, :512]
    body = np.where(np.hypot(rows - 256, columns - 256) < 220, 40 + 30 * np.sin(rows / 40), -1000)
    image = (body + rng.normal(0, 15, body.shape)).round().astype(np.int16)
    encoded = records.encode(make_record(image))
    shards.write_shard(tmp_path / "shard", [encoded] * 20)
    assert (tmp_path / "shard").stat().st_size < 0.6 * 20 * image.nbytes
    seconds = []
    for _ in range(10):
        begin = time.process_time()
        records.decode_pixels(encoded)
        seconds.append(time.process_time() - begin)
    assert min(seconds) < 1 / 200
