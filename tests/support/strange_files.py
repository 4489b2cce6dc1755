"""Sound files of every kind that others may hand on, how each is read, and how JSON is spoiled: for the tests of
hostile files, and for scripts/fuzz.py."""

from __future__ import annotations

import functools
import json
import random
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pages

from lungjax import json_files, tables
from lungjax.data import bags, loader, manifest, shards
from lungjax.errors import Fault, InputError
from lungjax.evaluation.detection import luna16_rules
from lungjax.prediction import run
from lungjax.preparation import choices
from lungjax.tasks.task import Config
from lungjax.train import calibrate, trained, workdir

STRANGE: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 3, 2**31, 2**64, 10**30, 0.5, -0.5, 1e308, float("nan"), float("-inf")),
    *("", "x", "hu", "None", "segment", "float16", "../../etc/passwd", "/etc/passwd"),
    *([], {}, [1] * 100, [[1]], {"a": 1}),
)
MODELS = ("model", "candidate_classifier", "nodule_classifier", "patient_classifier")
CALIBRATION = {"slope": 0.5, "offset": -0.25, "fitted_on": 7, "step": 3, "prevalence": 0.4, "prevalence_of": 9}
SHARES = {"predicted": [0.0, 0.5, 1.0], "share": [0.0, 0.25, 0.5], "fitted_on": 7, "step": 3}
OUTLINE = {"outline_predicted": [0.0, 0.25, 1.0], "outline": [0.25, 0.5, 0.75]}
MARKING = {**SHARES, **OUTLINE, "marking_weights": [0.5, 0.25, 0.125, 0.0, -0.25]}
POINTS = {"false_positives_a_scan": [0.5, 1.0], "threshold": [0.75, 0.5], "default": 1.0, "fitted_on": "3 scans"}
SPLIT = {"patients": {"A": "train", "B": "test"}, "digest": "0" * 16, "intensity": "hu", "seen": {}, "data": {}}
TABLES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "labels": ("patient_id,label", bags.read_labels),
    "patients": ("case,patient", choices.read_patients),
    "candidates": (
        "seriesuid,coordX,coordY,coordZ,probability",
        lambda path: luna16_rules.read_points(path, "probability"),
    ),
    "any": ("a;b", lambda path: list(tables.read(path, ("a", "b")))),
}
"""By what they list: a header, and what reads such a table."""


def changed_json(content: Any, rng: random.Random) -> Any:
    """JSON with a value replaced somewhere, or left out; `rng` may be drawn by Hypothesis."""
    if isinstance(content, dict | list) and content and rng.randrange(10):
        copy: Any = dict(content) if isinstance(content, dict) else list(content)
        place = rng.choice(sorted(copy) if isinstance(copy, dict) else range(len(copy)))
        if rng.randrange(10):
            copy[place] = changed_json(copy[place], rng)
        else:
            del copy[place]
        return copy
    return rng.choice(STRANGE)


def refusal(read: Callable[[], object]) -> str:
    """What the InputError or Fault says, one line; empty where there is none."""
    said = ""
    try:
        read()
    except (InputError, Fault) as error:
        said = str(error)
    assert len(said.splitlines()) <= 1, said
    return said


def read_dataset(folder: Path) -> None:
    """Reads all that a training would."""
    dataset = shards.open_dataset(folder)
    rows = np.arange(len(dataset))
    loader.Slices(dataset, crop_px=16, crop_at="nodule").batch(rows)
    for split in ("train", "val", "test"):
        refusal(lambda split=split: loader.select_rows(dataset, split=split, slices="rated"))
    bags.Bags(dataset, nodules=2).batch(np.arange(1))


def write_index(folder: Path, content: bytes) -> None:
    """Another index.csv, as somebody who then writes the manifest's seal anew."""
    (folder / manifest.INDEX).write_bytes(content)
    described = json.loads((folder / manifest.MANIFEST).read_text())
    digest = manifest.sha256(folder / manifest.INDEX)
    described["files"][manifest.INDEX] |= {"bytes": len(content), "sha256": digest}
    manifest.save_manifest(folder, described)


def report() -> dict[str, Any]:
    """A report of `lungjax predict` that `read_report` goes on with."""
    whole = pages.report(threshold=0.5)
    whole["patient"] |= {"prevalence": None, "model": None, "probability": None, "reason": "It is a test."}
    return whole


def read_report(folder: Path) -> dict[str, Any]:
    """The report of an earlier call of `lungjax predict`, and what a later one prints of it."""
    whole = report()
    networks = types.SimpleNamespace(descriptions=lambda: {name: whole.get(name) for name in MODELS})
    opened: Any = types.SimpleNamespace(networks=networks, point=types.SimpleNamespace(threshold=0.5), prevalence=None)
    found = run.earlier_report(folder, opened)
    run.Summary(folder, {folder: found}, 1, ()).text()
    return found


def read_calibration(folder: Path) -> None:
    """A run's calibration, with what it is used for."""
    known = calibrate.read_calibration(folder, 3)
    calibrate.probability(np.zeros(2), known)
    calibrate.shares_of(known)


def read_run(folder: Path, files: Any) -> None:
    """A run as it is gone on with and as its network is opened, with these contents of its files by their names."""
    for name in (workdir.CONFIG_FILE, workdir.SPLIT_FILE, workdir.ORIGIN_FILE):
        content = files.get(name) if isinstance(files, dict) else files
        (folder / name).write_text(json.dumps(content))
    refusal(lambda: workdir.check_begun(folder, _config(), {"A": "train"}, data={"data.path": "0"}))
    trained.open_trained(folder)


@functools.cache
def _config() -> Config:
    return networks.small_config("sift")


def files_of_run(folder: Path) -> dict[str, Any]:
    """The contents of a run's files by their names, without seals."""
    names = (workdir.CONFIG_FILE, workdir.SPLIT_FILE, workdir.ORIGIN_FILE)
    return {name: json_files.unsealed(json_files.read(folder / name)) for name in names}


IN_A_RUN: dict[str, tuple[tuple[dict[str, Any], ...], Callable[[Path], object]]] = {
    calibrate.CALIBRATION_FILE: ((CALIBRATION, SHARES, MARKING), read_calibration),
    workdir.POINTS_FILE: ((POINTS,), workdir.read_operating_points),
    workdir.SPLIT_FILE: ((SPLIT,), workdir.read_split),
}
"""Files of a run: what may stand in them, and what reads them in its folder."""
