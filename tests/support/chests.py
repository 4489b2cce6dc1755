"""Chests and networks for `lungjax predict`, made up and small."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import runs

from lungjax.ct.lungs import find_lungs
from lungjax.ct.scan import Scan
from lungjax.prediction import description, sources
from lungjax.prediction.operating_point import OperatingPoint
from lungjax.prediction.outputs import report_json
from lungjax.prediction.predicted import PredictedPatient
from lungjax.prediction.run import Summary, predict
from lungjax.tasks import segment
from lungjax.train import trained
from lungjax.train.trained import Trained

SPACING_MM = (5.0, 2.5, 2.5)
SHAPE = (40, 128, 128)
LUNG_HU, TISSUE_HU, NODULE_HU = -850, 40, 30
BALLS = (((15, 64, 38), 10.0), ((28, 60, 92), 7.0))
"""Nodules: centre (slice, row, column) and radius in mm, one in each lung."""
SEEN = {"slice_mm": [1.0, 5.0], "pixel_mm": [0.5, 2.5], "side_px": 64}


def chest(*, balls: Any = BALLS) -> np.ndarray:
    """int16 `SHAPE`: air, an elliptic body, two lungs of ellipsoid shape, and balls in them."""
    place = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1).astype(float)
    hu = np.full(SHAPE, -1000, np.int16)
    hu[_distance(place, (20, 64, 64), (1e9, 50, 58)) < 1] = TISSUE_HU
    for column in (38, 92):
        hu[_distance(place, (20, 64, column), (17, 34, 20)) < 1] = LUNG_HU
    for centre, radius_mm in balls:
        hu[_distance(place, centre, [radius_mm / mm for mm in SPACING_MM]) < 1] = NODULE_HU
    return hu


def ball(centre: Any, radius_mm: float) -> np.ndarray:
    """bool `SHAPE`."""
    place = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), axis=-1).astype(float)
    return _distance(place, centre, [radius_mm / mm for mm in SPACING_MM]) < 1


def _distance(place: np.ndarray, centre: Any, radii: Any) -> np.ndarray:
    return np.sqrt((((place - centre) / radii) ** 2).sum(axis=-1))


def scan(hu: np.ndarray | None = None, **other: Any) -> Scan:
    """A scan of `chest`; `other` replaces its fields."""
    hu = chest() if hu is None else hu
    fields: dict[str, Any] = {
        "patient_id": "TEST-1",
        "study_uid": "1.2.3",
        "series_uid": "1.2.3.4",
        "voxels": hu,
        "intensity": "hu",
        "z_mm": SPACING_MM[0] * np.arange(len(hu)),
        "spacing_mm": SPACING_MM,
        "sop_uids": ("",) * len(hu),
        "padding_hu": None,
        "nodules": (),
        "affine_lps": np.array([[2.5, 0, 0, -10], [0, 2.5, 0, -20], [0, 0, 5, 30], [0, 0, 0, 1.0]]),
    }
    return Scan(**(fields | other))


def untrained(path: Path) -> Trained:
    """A small segmenter with random weights, as `open_trained` gives one."""
    config = runs.small_config("segment", path)
    config.data.crop_px = 0
    variables: Any = segment.network(config).init(jax.random.key(0), jnp.zeros((1, 64, 64, 1)), train=False)
    return Trained(
        path=path,
        config=config,
        variables={"params": variables["params"], "model_state": {}},
        step=1,
        patients={"TEST-2": "train", "TEST-3": "test"},
        intensity="unit",
        seen=dict(SEEN),  # A test may change its own.
        origin={},
        figures={},
    )


def export_tiny(folder: Path) -> Path:
    """Exports a tiny segmenter that was never trained, and calls little a nodule, into `folder`; returns it."""
    tiny = untrained(folder)
    tiny.variables["params"]["head"]["bias"] -= 0.6
    trained.write_exported(tiny, folder, dtype="float32")
    return folder


class Told:
    """Stands for a trained segmenter: it has been told what is a nodule in each scan, and how probable.

    Args:
      truth: pairs of HU (slices, rows, columns) and probability of that shape.
      trained: what is known of the network that it stands for.
    """

    def __init__(self, truth: list[tuple[np.ndarray, np.ndarray]], trained: Any = None):
        self._truth = truth
        self.trained = trained
        self.calls = 0

    def volume(self, hu: np.ndarray, region: np.ndarray, *, slice_mm: float | None = None) -> np.ndarray:
        del slice_mm
        self.calls += 1
        (found,) = [probability for known, probability in self._truth if np.array_equal(known, hu)]
        return np.where(region, found, 0).astype(np.float16)


THRESHOLD = 0.83


def run(source: Path, out: Path, threshold: float = THRESHOLD) -> Summary:
    return predict(
        source,
        model="model",
        candidate_classifier=None,
        nodule_classifier=None,
        patient_classifier=None,
        out=out,
        threshold=threshold,
    )


def report(scan: Scan, candidates: Any, classified: Any = None, **model: Any) -> dict[str, Any]:
    """A report in which all of the candidates are nodules; `model` describes the segmenter."""
    return report_json.as_dict(
        scan,
        models={"model": model, "candidate_classifier": None, "nodule_classifier": None, "patient_classifier": None},
        nodules=description.describe(scan, find_lungs(scan.voxels, scan.spacing_mm), candidates, classified),
        candidates=[],
        patient=PredictedPatient.without("It is a test."),
        refused=None,
        warnings=[],
        lungs=None,
        operating_point=OperatingPoint(0.5, None, "It is a test."),
        made=report_json.now(),
    )


def folders(dicom: Path) -> dict[str, Path]:
    """The folder of each series, by its UID."""
    return {entry.key: Path(entry.where) for entry in sources.find_scans(dicom)[1]}
