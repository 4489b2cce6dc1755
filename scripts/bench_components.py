"""Connected components by lungjax, by connected-components-3d and by SciPy, on the masks of a real scan.

    .venv/bin/python scripts/bench_components.py --source FOLDER [--repeats 7]

FOLDER holds the DICOM of one scan. Masks: those that `lungs.find_lungs` labels on its grid of 3 mm, and at the scan's
own voxels what is denser than -400 HU, all of it and within the lungs alone. What is timed is what lungjax needs:
labels, the size of every component, and a mask of the largest; of connected-components-3d also its labels alone. CPU
seconds of one process, the best of the repeats.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import cc3d
import numpy as np
from scipy import ndimage

from lungjax.ct import connected_components, lungs
from lungjax.prediction import sources


def masks(source: Path) -> dict[str, np.ndarray]:
    """The masks to label, by name; components are connected by faces."""
    module, (entry, *_), _ = sources.find_scans(source)
    scan = sources.read(module, entry)
    by_name: dict[str, np.ndarray] = {}
    original = connected_components.find_components

    def watched(mask: np.ndarray, *axes: int) -> connected_components.Components:
        if axes == (0, 1):
            by_name[f"grid of 3 mm, {len(by_name) + 1}"] = mask.copy()
        return original(mask, *axes)

    connected_components.find_components = watched
    try:
        scan_lungs = lungs.find_lungs(scan.voxels, scan.spacing_mm)
    finally:
        connected_components.find_components = original
    dense = scan.voxels > lungs.AIR_HU
    return by_name | {"dense": dense, "dense, in the lungs": dense & scan_lungs.mask()}


def ours(mask: np.ndarray) -> np.ndarray:
    """The largest component."""
    components = connected_components.find_components(mask, 0, 1)
    return components.mask(components.sizes == components.sizes.max(initial=0))


def largest(labels: np.ndarray, count: int) -> np.ndarray:
    """The component with the most voxels; 0 is the background."""
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    return (sizes == sizes.max())[labels]


def labelled(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """By connected-components-3d."""
    return cc3d.connected_components(mask, connectivity=6, return_N=True)


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Of CPU time, at best."""
    times_s = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times_s.append(time.process_time() - start)
    return min(times_s)


def main() -> None:
    """Prints a table in milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    print(f"{'mask':20} {'voxels':>15} {'components':>10} {'ours':>8} {'cc3d':>8} {'its labels':>10} {'SciPy':>8}  ms")
    for name, mask in masks(arguments.source).items():
        labels, count = labelled(mask)
        np.testing.assert_array_equal(ours(mask), largest(labels, count))
        ways = (
            lambda mask=mask: ours(mask),
            lambda mask=mask: largest(*labelled(mask)),
            lambda mask=mask: labelled(mask),
            lambda mask=mask: largest(*ndimage.label(mask)),  # pyright: ignore[reportGeneralTypeIssues]
        )
        ms = [1000 * seconds(way, arguments.repeats) for way in ways]
        shape = "x".join(map(str, mask.shape))
        print(f"{name:20} {shape:>15} {count:>10,} {ms[0]:8.1f} {ms[1]:8.1f} {ms[2]:10.1f} {ms[3]:8.1f}")


if __name__ == "__main__":
    main()
