"""What a run's folder remembers: its configuration and its split of patients."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import ml_collections

import lungjax
from lungjax.data import splits
from lungjax.errors import InputError
from lungjax.tasks.task import Config

CONFIG_FILE = "config.json"
SPLIT_FILE = "split.json"
ORIGIN_FILE = "origin.json"
POINTS_FILE = "operating_points.json"


@contextlib.contextmanager
def config_mistakes() -> Iterator[None]:
    """Values that a model, loss or optimizer refuses are a user's mistake: one sentence, and nothing is written."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise InputError(f"the configuration cannot be used: {str(error).splitlines()[0]}") from error


def make(path: Path, *, option: str) -> None:
    """A folder, unless it is there; InputError, which names the command's option, where it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be made ({error.strerror}); {option} must be where one can write.") from error


def check_counts(config: Config) -> None:
    """InputError where a number of steps, slices or processes is out of its range."""
    counts = {
        "steps": (config.steps, 1),
        "log_every": (config.log_every, 1),
        "eval_every": (config.eval_every, 1),
        "checkpoint_every": (config.checkpoint_every, 1),
        "keep_checkpoints": (config.keep_checkpoints, 1),
        "data.batch_size": (config.data.batch_size, 2),  # One slice alone has nothing to be told apart from.
        "data.crop_px": (config.data.crop_px, 0),
        "data.workers": (config.data.workers, 0),
    }
    for name, (value, least) in counts.items():
        if value < least:
            raise InputError(f"config.{name} is {value}; it must be at least {least}.")


def check_shares(config: Config) -> None:
    """InputError where the average of the weights would be none, or there would be no patients to train on."""
    if not 0 < config.data.train_share <= 1:
        raise InputError(f"config.data.train_share is {config.data.train_share}; it must be above 0 and at most 1.")
    if not 0 <= config.average_decay < 1:
        raise InputError(f"config.average_decay is {config.average_decay}; it must be at least 0 and below 1.")


def check_begun(workdir: Path, config: Config, assignment: dict[str, splits.Split]) -> None:
    """Refuses to go on with another configuration, for the schedule depends on all of it, or other patients.

    Raises:
      InputError: names what differs; or a patient that moved to another split, the leak lock.
    """
    path = workdir / CONFIG_FILE
    if not path.exists():
        return
    old, asked = (dict(_leaves(one)) for one in (_read_json(path), json.loads(json.dumps(config.to_dict()))))
    changed = sorted(key for key in old.keys() | asked.keys() if old.get(key) != asked.get(key))
    if changed:
        raise InputError(
            f"{workdir}: was begun with another config.{changed[0]} ({old.get(changed[0])}); "
            "choose a new --workdir or the old value."
        )
    begun = read_split(workdir)
    splits.lock(begun["patients"], assignment, where=config.data.path)
    if begun["digest"] != splits.digest(assignment):
        raise InputError(f"{workdir}: was begun on other patients than {config.data.path} has; choose a new --workdir.")


def remember(
    workdir: Path, config: Config, assignment: dict[str, splits.Split], *, intensity: str, seen: dict[str, Any]
) -> None:
    """Stores what `check_begun` compares, and what the run sees; the configuration last: it makes a run of it."""
    split = {"digest": splits.digest(assignment), "intensity": intensity, "seen": seen, "patients": assignment}
    _write_json(workdir / SPLIT_FILE, split)
    if not (workdir / ORIGIN_FILE).exists():
        _write_json(workdir / ORIGIN_FILE, _origin())
    _write_json(workdir / CONFIG_FILE, config.to_dict())


def read_config(workdir: Path) -> Config:
    """The configuration a run was begun with."""
    path = workdir / CONFIG_FILE
    if not path.is_file():
        raise InputError(f"{workdir}: no {CONFIG_FILE} in it; give the workdir of a training run.")
    return ml_collections.ConfigDict(_read_json(path))


def read_origin(workdir: Path) -> dict[str, Any]:
    """How, when and on what a run was begun."""
    path = workdir / ORIGIN_FILE
    if not path.is_file():
        older = "an older lungjax, whose networks saw other images, began it; train anew"
        raise InputError(f"{workdir}: no {ORIGIN_FILE} in it: {older}.")
    return _read_json(path)


def read_operating_points(workdir: Path) -> dict[str, Any]:
    """Of a run, the thresholds that were fitted on whole scans; empty where none were."""
    path = workdir / POINTS_FILE
    return _read_json(path) if path.is_file() else {}


def write_operating_points(workdir: Path, points: dict[str, Any]) -> None:
    """Stores thresholds with a run."""
    _write_json(workdir / POINTS_FILE, points)


def _origin() -> dict[str, Any]:
    devices = jax.devices()
    return {
        "command": shlex.join(["python", "-m", "lungjax.main", *sys.argv[1:]]),
        "started": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "hardware": f"{len(devices)} x {devices[0].device_kind}, {os.cpu_count()} cores",
        "versions": {"lungjax": lungjax.__version__, "jax": jax.__version__},
    }


def read_split(workdir: Path) -> dict[str, Any]:
    """`patients` and the split of each, their `digest`, and of the data `intensity` and `seen`, of a run."""
    path = workdir / SPLIT_FILE
    if not path.is_file():
        raise InputError(f"{workdir}: no {SPLIT_FILE} in it; give the workdir of a training run.")
    return _read_json(path)


def _leaves(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(`a.b.c`, value) of each value in nested dicts."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}); the run cannot go on, choose a new --workdir.") from error


def _write_json(path: Path, content: dict) -> None:
    write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def write_text(path: Path, text: str) -> None:
    """Whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)
