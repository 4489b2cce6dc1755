"""One slice <-> bytes: the schema of a record, versioned."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgpack
import numpy as np

from lungjax.lidc.scan import InputError, Intensity, Scan

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True)
class SliceRecord:
    """What the scanner and the readers said of one slice.

    Attributes:
      image: (rows, columns) int16 HU, or uint8 where the source lost HU.
      readers: (rows, columns) uint8; bit r is set where the reader in slot r marked the pixel.
      patient_id, study_uid, series_uid, sop_uid: as in `Scan`.
      slice_index: position in the scan, ascending along the slice normal.
      z_mm: along the normal; NaN where unknown.
      spacing_mm: (slice, row, column); NaN where unknown.
      padding_hu: values up to this one lie outside the scanner's circle; None where there are none.
      intensity: `hu` or `unit`.
      nodules: those that touch this slice, each `{"index": n, "readings": [{"slot", "annotation_id",
        "ratings": nine integers in the order of `RATING_NAMES`}, ...]}` with every reader of the nodule.
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


def of_scan(scan: Scan) -> list[SliceRecord]:
    """All slices of a scan, in its order."""
    bits = scan.reader_bits()
    described: list[list[dict[str, Any]]] = [[] for _ in scan.voxels]
    for nodule in scan.nodules:
        readings = [
            {"slot": r.slot, "annotation_id": r.annotation_id, "ratings": [int(x) for x in r.ratings]}
            for r in nodule.readings
        ]
        first = min(r.origin[0] for r in nodule.readings)
        last = max(r.origin[0] + r.mask.shape[0] for r in nodule.readings)
        for touched in described[first:last]:
            touched.append({"index": nodule.index, "readings": readings})
    return [
        SliceRecord(
            image=scan.voxels[k],
            readers=bits[k],
            patient_id=scan.patient_id,
            study_uid=scan.study_uid,
            series_uid=scan.series_uid,
            sop_uid=scan.sop_uids[k],
            slice_index=k,
            z_mm=float(scan.z_mm[k]),
            spacing_mm=scan.spacing_mm,
            padding_hu=scan.padding_hu,
            intensity=scan.intensity,
            nodules=tuple(described[k]),
        )
        for k in range(len(scan.voxels))
    ]


def encode(record: SliceRecord) -> bytes:
    """One record as bytes, filtered so that the shard's zstd finds little left to do."""
    fields = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
    return msgpack.packb(
        {
            **fields,
            "version": SCHEMA_VERSION,
            "shape": record.image.shape,
            "image": _filter(record.image),
            "readers": np.ascontiguousarray(record.readers).tobytes() if record.readers.any() else b"",
        }
    )


def decode(data: bytes) -> SliceRecord:
    """The record; InputError where `data` is none of this version."""
    fields = _unpack(data)
    image, readers = _pixels(fields)
    names = [f.name for f in dataclasses.fields(SliceRecord)]
    fields |= {"image": image, "readers": readers, "spacing_mm": tuple(fields["spacing_mm"])}
    fields["nodules"] = tuple(fields["nodules"])
    return SliceRecord(**{name: fields[name] for name in names})


def decode_pixels(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Image and readers' bits alone: what a batch needs."""
    return _pixels(_unpack(data))


def _unpack(data: bytes) -> dict[str, Any]:
    try:
        fields = msgpack.unpackb(data)
        version = fields["version"]
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise InputError(f"a record is damaged ({error}); prepare the data again.") from error
    if version != SCHEMA_VERSION:
        raise InputError(
            f"a record has schema version {version}, this lungjax reads {SCHEMA_VERSION}; prepare the data again."
        )
    return fields


def _pixels(fields: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    shape = tuple(fields["shape"])
    if fields["intensity"] == "hu":
        image = _unfilter(fields["image"], shape)
    else:
        image = np.frombuffer(fields["image"], np.uint8).reshape(shape)
    marks = fields["readers"]
    readers = np.frombuffer(marks, np.uint8).reshape(shape) if marks else np.zeros(shape, np.uint8)
    return image, readers


def _filter(image: np.ndarray) -> bytes:
    """int16: differences along the row, small magnitudes first (zigzag), low bytes before high ones; uint8 as it is.

    Measured on LIDC-IDRI-0003 with zstd: 35 % of the raw size, where zstd alone leaves 48 to 54 %.
    """
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image).tobytes()
    values = np.ascontiguousarray(image).view(np.uint16)
    steps = values.copy()
    steps[:, 1:] -= values[:, :-1]
    signed = steps.view(np.int16)
    zigzag = ((signed << 1) ^ (signed >> 15)).view(np.uint16)
    return (zigzag & 0xFF).astype(np.uint8).tobytes() + (zigzag >> 8).astype(np.uint8).tobytes()


def _unfilter(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    low, high = np.frombuffer(data, np.uint8).reshape(2, *shape)
    zigzag = high.astype(np.uint16)
    zigzag <<= 8
    zigzag |= low
    signs = zigzag & 1
    np.negative(signs, out=signs)
    zigzag >>= 1
    zigzag ^= signs
    return np.cumsum(zigzag, axis=1, dtype=np.uint16, out=zigzag).view(np.int16)
