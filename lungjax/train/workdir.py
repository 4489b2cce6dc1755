"""What a run's folder remembers: its configuration and its split of patients."""

from __future__ import annotations

import json
from pathlib import Path

import ml_collections

from lungjax.data import splits
from lungjax.lidc.scan import InputError
from lungjax.tasks.task import Config

CONFIG_FILE = "config.json"
SPLIT_FILE = "split.json"


def write_config(config: Config, workdir: Path) -> None:
    """Stores the configuration; refuses to go on with another one, but for a longer run."""
    path = workdir / CONFIG_FILE
    new = config.to_dict()
    if path.exists():
        old = json.loads(path.read_text())
        changed = sorted(k for k in old.keys() | new.keys() if old.get(k) != json.loads(json.dumps(new.get(k))))
        if changed:
            raise InputError(
                f"{workdir}: was begun with another config.{changed[0]} ({old.get(changed[0])}); "
                "choose a new --workdir or the old value."
            )
    _write_json(path, new)


def read_config(workdir: Path) -> Config:
    """The configuration a run was begun with."""
    path = workdir / CONFIG_FILE
    if not path.is_file():
        raise InputError(f"{workdir}: no {CONFIG_FILE} in it; give the workdir of a training run.")
    return ml_collections.ConfigDict(json.loads(path.read_text()))


def write_split(workdir: Path, assignment: dict[str, splits.Split]) -> None:
    """Stores which patients a run may train on; refuses a workdir that was begun with others."""
    path = workdir / SPLIT_FILE
    if path.exists():
        lock_split(workdir, assignment, where="config.data.path")
        return
    _write_json(path, {"digest": splits.digest(assignment), "patients": assignment})


def lock_split(workdir: Path, assignment: dict[str, splits.Split], *, where: str) -> None:
    """The leak lock between a finished run and data."""
    path = workdir / SPLIT_FILE
    if not path.is_file():
        raise InputError(f"{workdir}: no {SPLIT_FILE} in it; give the workdir of a training run.")
    splits.lock(json.loads(path.read_text())["patients"], assignment, where=where)


def _write_json(path: Path, content: dict) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    temporary.replace(path)
