"""The files of a run's folder: its configuration, its split of patients, its origin."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from lungjax import json_files, locks
from lungjax.data import splits
from lungjax.errors import InputError
from lungjax.tasks.task import Config
from lungjax.train import config_checks, model_checks
from lungjax.version import VERSION

CONFIG_FILE = "config.json"
SPLIT_FILE = "split.json"
ORIGIN_FILE = "origin.json"
POINTS_FILE = "operating_points.json"
MACHINE = frozenset(
    {
        "replicas",
        "deterministic",
        "data.workers",
        "data.placement",
        "steps_per_dispatch",
        "accumulate",
        "remat",
        "mesh.parameters",
    }
)
"""What may change when a run goes on, perhaps on another machine: nothing that is learnt depends on it but by rounding,
and by the numbers that dropout draws where batches are accumulated."""

_ADDED = {"data.context": 0, "data.context_mm": 0.0}
"""Keys that older runs do not have, and what they did."""


@contextlib.contextmanager
def config_mistakes() -> Iterator[None]:
    """Turns the errors of models, losses and optimizers about their values into an InputError."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise InputError(f"the configuration cannot be used: {str(error).splitlines()[0]}") from error


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Makes a workdir and holds its lock, as process 0 of the run.

    Raises:
      InputError: another run holds it, which every process of this one is told; or it cannot be made.
    """
    with contextlib.ExitStack() as stack:
        problem = ""
        if jax.process_index() == 0:
            try:
                stack.enter_context(locks.hold(workdir / locks.NAME, of=workdir, option="--workdir"))
            except InputError as error:
                problem = str(error)
        if jax.process_count() > 1 and multihost_utils.broadcast_one_to_all(np.int32(bool(problem))):
            problem = problem or f"{workdir} cannot be used; see what process 0 says."
        if problem:
            raise InputError(problem)
        yield


def make(path: Path, *, option: str) -> None:
    """Makes a folder if it does not exist; InputError, which names the command's option, where that is impossible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{path} cannot be made ({error.strerror}); {option} must name a place where you can write."
        ) from error


def check_begun(
    workdir: Path, config: Config, assignment: dict[str, splits.Split], *, data: Mapping[str, str] | None = None
) -> None:
    """Refuses to resume a run with another configuration but for `MACHINE`, or with other patients.

    A data set may lie elsewhere than before: `data` has the identity of each, see `lungjax.data.manifest.identity`, by
    the name of its path in the configuration.

    Raises:
      InputError: the configuration differs, or the patients, or a patient's split (the leak lock).
    """
    path = workdir / CONFIG_FILE
    if not path.exists():
        return
    old, asked = (
        dict(config_checks.leaves(values)) for values in (_read_json(path), json.loads(json.dumps(config.to_dict())))
    )
    begun = read_split(workdir)
    moved = {name for name, identity in (data or {}).items() if begun.get("data", {}).get(name) == identity}
    old, asked = _ADDED | old, _ADDED | asked
    changed = sorted(key for key in (old.keys() | asked.keys()) - MACHINE - moved if old.get(key) != asked.get(key))
    if changed:
        raise InputError(
            f"{workdir}: was started with another config.{changed[0]} ({old.get(changed[0])}); "
            "choose a new --workdir or the old value."
        )
    splits.lock(begun["patients"], assignment, where=config.data.path)
    if begun["digest"] != splits.digest(assignment):
        raise InputError(
            f"{workdir}: was started with other patients than {config.data.path} has; choose a new --workdir."
        )


def record_run(
    workdir: Path,
    config: Config,
    assignment: dict[str, splits.Split],
    *,
    intensity: str,
    seen: dict[str, Any],
    data: Mapping[str, str] | None = None,
) -> None:
    """Stores what `check_begun` compares. The configuration comes last, because a workdir with one counts as a run."""
    split = {
        "digest": splits.digest(assignment),
        "intensity": intensity,
        "seen": seen,
        "data": {**(data or {})},
        "patients": assignment,
    }
    write_json(workdir / SPLIT_FILE, split)
    if not (workdir / ORIGIN_FILE).exists():
        write_json(workdir / ORIGIN_FILE, _origin())
    write_json(workdir / CONFIG_FILE, config.to_dict())


def read_config(workdir: Path) -> Config:
    """Reads the configuration that a run was started with."""
    path = workdir / CONFIG_FILE
    if not path.is_file():
        raise InputError(f"{workdir}: no {CONFIG_FILE} in it; give the workdir of a training run.")
    try:
        return ml_collections.ConfigDict(_read_json(path))
    except (ValueError, TypeError, AttributeError) as error:  # Names with dots, say, or its own attributes.
        raise _damaged(path, error) from error


def read_origin(workdir: Path) -> dict[str, Any]:
    """Reads how, when and on what hardware a run was started."""
    path = workdir / ORIGIN_FILE
    if not path.is_file():
        older = "it was started by an older version of lungjax, which prepared images differently; train again"
        raise InputError(f"{workdir}: no {ORIGIN_FILE} in it: {older}.")
    return _read_json(path)


def read_operating_points(workdir: Path) -> dict[str, Any]:
    """Of a run, the thresholds that were fitted on whole scans; empty where none were."""
    path = workdir / POINTS_FILE
    if not path.is_file():
        return {}
    try:
        model_checks.check_operating_points(points := json_files.unsealed(json_files.read(path)))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); fit the operating point again, or remove the file.") from error
    return points


def write_operating_points(workdir: Path, points: dict[str, Any]) -> None:
    """Stores thresholds with a run."""
    write_json(workdir / POINTS_FILE, points)


def _origin() -> dict[str, Any]:
    devices = jax.devices()
    return {
        "command": shlex.join(["python", "-m", "lungjax.main", *sys.argv[1:]]),
        "started": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "hardware": f"{len(devices)} x {devices[0].device_kind}, {os.cpu_count()} cores",
        "versions": {"lungjax": VERSION, "jax": jax.__version__},
    }


def read_split(workdir: Path) -> dict[str, Any]:
    """Reads a run's `patients` with the split of each, their `digest`, and the `intensity` and `seen` of its data."""
    path = workdir / SPLIT_FILE
    if not path.is_file():
        raise InputError(f"{workdir}: no {SPLIT_FILE} in it; give the workdir of a training run.")
    split = _read_json(path)
    try:
        model_checks.check_patients(split.get("patients"))
        if not isinstance(split.get("digest"), str):
            raise ValueError("digest is no text")
        if not isinstance(split.get("data", {}), dict):
            raise ValueError("data is no object")
    except ValueError as error:
        raise _damaged(path, error) from error
    return split


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json_files.unsealed(json_files.read(path))
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is damaged ({error}), so the run cannot be resumed; choose a new --workdir.")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON object, sealed, completely or not at all."""
    write_text(path, json.dumps(json_files.sealed(content), indent=1, sort_keys=True) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text file, completely or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(text)
        temporary.replace(path)
    except OSError:  # The disk is full, say.
        temporary.unlink(missing_ok=True)
        raise
