"""pylidc 0.2.3 itself, made to run on today's Python: `python pylidc_oracle.py OUT.npz SCAN_ID...`.

A program of its own, so that shims and warnings stay out of the tests' process. For every scan it writes
pylidc's own clusters (annotation ids), each annotation's `boolean_mask`, and each cluster's `consensus`.
"""

from __future__ import annotations

import argparse
import configparser
import functools
import importlib.util
import os
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np


def import_pylidc() -> Any:
    """The real package, with what today's NumPy, setuptools and Python took from under it put back."""
    warnings.simplefilter("ignore")
    os.environ["MPLBACKEND"] = "agg"
    for name, kind in {"int": int, "float": float, "bool": bool}.items():
        if name not in np.__dict__:
            setattr(np, name, kind)
    if not hasattr(configparser, "SafeConfigParser"):
        configparser.SafeConfigParser = configparser.ConfigParser  # pyright: ignore[reportAttributeAccessIssue]
    _put_back("pkg_resources", resource_filename=_resource_filename)
    from scipy.ndimage import distance_transform_edt

    _put_back("scipy.ndimage.morphology", distance_transform_edt=distance_transform_edt)
    import pylidc
    import pylidc.utils

    _remember(pylidc)
    return pylidc


def _put_back(name: str, **members: Any) -> None:
    module = types.ModuleType(name)
    module.__dict__.update(members)
    sys.modules[name] = module


def _resource_filename(package: str, name: str) -> str:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).with_name(name))


def _remember(pylidc: Any) -> None:
    """Keeps what pylidc computes anew on each use; it takes minutes otherwise. No value changes."""
    for kind, name in ((pylidc.Scan, "slice_zvals"), (pylidc.Annotation, "contours_matrix")):
        setattr(kind, name, property(functools.cache(getattr(kind, name).fget)))


def masks_and_clusters(pylidc: Any, scan_id: int) -> dict[str, np.ndarray]:
    """Of one scan, named for `numpy.savez`; masks in pylidc's axes (row, column, slice)."""
    scan = pylidc.query(pylidc.Scan).filter(pylidc.Scan.id == scan_id).one()
    clusters = scan.cluster_annotations(verbose=False)
    found = {f"{scan_id}/clusters": np.array([len(cluster) for cluster in clusters])}
    for number, cluster in enumerate(clusters):
        found[f"{scan_id}/{number}/annotations"] = np.array([annotation.id for annotation in cluster])
        mask, box = pylidc.utils.consensus(cluster, clevel=0.5, ret_masks=False)
        found[f"{scan_id}/{number}/consensus"] = mask
        found[f"{scan_id}/{number}/origin"] = np.array([part.start for part in box])
        for annotation in cluster:
            found[f"{annotation.id}/mask"] = annotation.boolean_mask()
            found[f"{annotation.id}/origin"] = np.array([part.start for part in annotation.bbox()])
            found[f"{annotation.id}/ratings"] = annotation.feature_vals()
    return found


def main() -> None:
    """Writes OUT.npz."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("scan_ids", type=int, nargs="+")
    arguments = parser.parse_args()
    pylidc = import_pylidc()
    found: dict[str, np.ndarray] = {}
    for scan_id in arguments.scan_ids:
        found |= masks_and_clusters(pylidc, scan_id)
    np.savez(arguments.out, allow_pickle=False, **found)


if __name__ == "__main__":
    main()
