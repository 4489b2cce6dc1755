"""Encodes a slice as bytes and back: the schema of a record, versioned, lossless, and fast to decode.

A record is msgpack: nothing in it is ever executed, whoever wrote the file. The image is stored as differences of
neighbouring pixels, split into byte planes: a CT's noise is then in one plane, and the shard's Snappy compression
reduces it to about 45 % of raw int16. The readers' bits are stored within their bounding box.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import msgpack
import numpy as np

from lungjax.ct.scan import Intensity
from lungjax.errors import InputError

SCHEMA_VERSION = 1
"""Increased whenever an older lungjax would misread a record, the index or the manifest."""

DTYPES: dict[Intensity, np.dtype] = {
    "hu": np.dtype(np.int16),
    "unit": np.dtype(np.uint8),
    "fraction": np.dtype(np.float32),
    "zscore": np.dtype(np.float32),
}
"""Of an image's pixels."""


@dataclasses.dataclass(frozen=True)
class SliceRecord:
    """One slice with the scanner's pixels and the readers' marks.

    Attributes:
      image: (rows, columns), dtype by `intensity`.
      readers: uint8 (rows, columns): bit r is set where the reader in slot r marked the pixel.
      patient_id, study_uid, series_uid, sop_uid: IDs; `sop_uid` is empty where the source has none.
      slice_index: number of the slice in the scan, from 0, ascending along the normal.
      z_mm: position along the normal; NaN where the source has lost it.
      spacing_mm: (slice, row, column) distance between voxel centres; NaN where the source has lost it.
      padding_hu: pixels at or below this value lie outside the scanner's circle; None if there are none.
      intensity: see `lungjax.ct.scan.Intensity`.
      nodules: the nodules of this slice, each `{"index": int, "readings": ({"slot", "annotation_id", "ratings",
        "box"}, ...)}` with nine ratings, and the reading's box as from `box_of`, None where it has no pixel.
    """

    image: np.ndarray
    readers: np.ndarray
    patient_id: str
    study_uid: str
    series_uid: str
    sop_uid: str
    slice_index: int
    z_mm: float
    spacing_mm: tuple[float, float, float]
    padding_hu: int | None
    intensity: Intensity
    nodules: tuple[dict[str, Any], ...]


def encode(record: SliceRecord) -> bytes:
    """Encodes a record; equal records give equal bytes.

    Raises:
      ValueError: image and readers differ in shape, or a dtype does not fit `intensity`.
    """
    image, readers = record.image, record.readers
    if image.dtype != DTYPES[record.intensity] or readers.dtype != np.uint8:
        raise ValueError(f"image {image.dtype} and readers {readers.dtype} do not fit intensity {record.intensity!r}")
    if image.ndim != 2 or image.shape != readers.shape or not image.size:
        raise ValueError(f"image {image.shape} and readers {readers.shape} must be one (rows, columns) shape")
    box = box_of(readers)
    fields = {
        "version": SCHEMA_VERSION,
        "shape": image.shape,
        "intensity": record.intensity,
        "readers_box": box,
        "readers": b"" if box is None else readers[box[0] : box[1] + 1, box[2] : box[3] + 1].tobytes(),
    }
    for name in _PLAIN_FIELDS:
        fields[name] = getattr(record, name)
    planes = _filter(image)
    # The image comes last, after its msgpack header: msgpack itself would copy it twice.
    head = msgpack.packb({**fields, "image": b""})[:-2]  # pyright: ignore[reportOptionalSubscript]
    return b"".join((head, b"\xc6", planes.nbytes.to_bytes(4, "big"), planes.data))


def decode(data: bytes) -> SliceRecord:
    """Decodes a record that `encode` made.

    Raises:
      InputError: the bytes are not a record, or have another schema version.
    """
    fields = _unpack(data)
    try:
        image, readers = _pixels(fields)
        plain = {name: fields[name] for name in _PLAIN_FIELDS}
        plain["spacing_mm"] = tuple(plain["spacing_mm"])
        plain["nodules"] = tuple(_nodule(nodule) for nodule in plain["nodules"])
        return SliceRecord(image=image, readers=readers, intensity=fields["intensity"], **plain)
    except (KeyError, TypeError, ValueError) as error:
        raise _corrupt(error) from error


def decode_pixels(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Decodes only the image and the readers' bits, both (rows, columns): what a training step needs.

    Raises:
      InputError: as for `decode`.
    """
    fields = _unpack(data)
    try:
        return _pixels(fields)
    except (KeyError, TypeError, ValueError) as error:
        raise _corrupt(error) from error


def decode_nodules(data: bytes) -> tuple[dict[str, Any], ...]:
    """Decodes only the nodules, as in `SliceRecord`, without decoding the image.

    Raises:
      InputError: as for `decode`.
    """
    fields = _unpack(data)
    try:
        return tuple(_nodule(nodule) for nodule in fields["nodules"])
    except (KeyError, TypeError, ValueError) as error:
        raise _corrupt(error) from error


def box_of(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """(row_min, row_max, column_min, column_max), inclusive, of a (rows, columns) mask; None if empty."""
    if not mask.max():  # The fastest check; in most slices nothing is marked.
        return None
    columns = np.flatnonzero(np.bitwise_or.reduce(mask, axis=0))  # Columns first takes a fifth of the time.
    rows = np.flatnonzero(mask[:, columns[0] : columns[-1] + 1].any(axis=1))
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


_PLAIN_FIELDS = (
    "patient_id",
    "study_uid",
    "series_uid",
    "sop_uid",
    "slice_index",
    "z_mm",
    "spacing_mm",
    "padding_hu",
    "nodules",
)
"""Fields of `SliceRecord` that msgpack stores without conversion."""


def _filter(image: np.ndarray) -> np.ndarray:
    """Differences from the pixel on the left, modulo the range, zigzag coded; all low bytes, then all higher bytes.

    The bits of floats are treated as integers, so nothing is rounded.

    Returns uint8 (bytes per pixel, rows, columns). It works in place where possible: memory costs more than arithmetic.
    """
    unsigned = np.dtype(f"u{image.itemsize}")
    pixels = np.ascontiguousarray(image).view(unsigned)
    coded = np.empty_like(pixels)
    planes = np.empty((image.itemsize, *image.shape), np.uint8)
    # This also runs across the ends of rows, because one long difference is several times as fast as many short ones.
    np.subtract(pixels.ravel()[1:], pixels.ravel()[:-1], out=coded.ravel()[1:])
    coded[:, 0] = pixels[:, 0]
    # Zigzag maps 0, -1, 1, -2 to 0, 1, 2, 3, so that the high byte of a small difference of either sign is 0.
    sign = planes.ravel().view(np.dtype(f"i{image.itemsize}")).reshape(image.shape)  # Memory that is still unused.
    np.right_shift(coded.view(sign.dtype), 8 * image.itemsize - 1, out=sign)
    coded += coded
    coded ^= sign.view(unsigned)
    planes[0] = coded  # Keeps only the low byte.
    for plane in planes[1:]:
        plane[...] = np.right_shift(coded, 8, out=coded)
    return planes


def _unfilter(data: bytes, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    unsigned = np.dtype(f"u{dtype.itemsize}")
    planes = np.frombuffer(data, np.uint8).reshape(dtype.itemsize, *shape)
    # All rows at once: with a few at a time, two threads that decode keep waiting for Python's lock between their short
    # operations, and take longer than one thread.
    coded = planes[-1].astype(unsigned)
    for plane in planes[-2::-1]:
        coded <<= 8
        coded |= plane
    sign = coded & 1
    np.negative(sign, out=sign)  # All bits 0 or all bits 1.
    coded >>= 1
    coded ^= sign
    # Sums of 32 bits take a third of the time of those of 16, and their lower bits are the same.
    return np.cumsum(coded, axis=1, dtype=np.uint32).astype(unsigned, copy=False).view(dtype)


def _unpack(data: bytes) -> dict[str, Any]:
    try:
        fields = msgpack.unpackb(data)
        version = fields["version"]
    except (ValueError, KeyError, TypeError, IndexError, msgpack.UnpackException) as error:
        raise _corrupt(error) from error
    if version != SCHEMA_VERSION:
        raise InputError(
            f"the record has schema version {version}, but this lungjax reads {SCHEMA_VERSION}; prepare it again."
        )
    return fields


def _pixels(fields: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = fields["shape"]
    image = _unfilter(fields["image"], (rows, columns), DTYPES[fields["intensity"]])
    readers = np.zeros((rows, columns), np.uint8)
    if fields["readers_box"] is not None:
        top, bottom, left, right = fields["readers_box"]
        box = np.frombuffer(fields["readers"], np.uint8).reshape(bottom - top + 1, right - left + 1)
        readers[top : bottom + 1, left : right + 1] = box
    return image, readers


def _nodule(fields: dict[str, Any]) -> dict[str, Any]:
    """Turns the lists of msgpack back into tuples."""
    readings = (
        {
            **reading,
            "ratings": tuple(reading["ratings"]),
            "box": None if reading["box"] is None else tuple(reading["box"]),
        }
        for reading in fields["readings"]
    )
    return {**fields, "readings": tuple(readings)}


def _corrupt(error: Exception) -> InputError:
    return InputError(f"the record is damaged ({type(error).__name__}: {error}); prepare the data again.")
