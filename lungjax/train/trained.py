"""A trained network from where it lies: a run's workdir, or an exported folder."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import flax.traverse_util
import ml_collections
import numpy as np
import safetensors.numpy

from lungjax.data import splits
from lungjax.lidc.scan import InputError
from lungjax.tasks.task import Config
from lungjax.train import calibrate, checkpoint
from lungjax.train import workdir as folder

WEIGHTS_FILE = "model.safetensors"
MODEL_FILE = "config.json"
SCHEMA = 1


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network, and what must be known to use it.

    Attributes:
      path: where it lies.
      config: the configuration it was trained with.
      variables: {"params", "model_state"}, nested dicts of float32 arrays.
      step: of the run that it was taken from.
      patients: of the data it was trained with, and the split of each: the leak lock.
      intensity: of that data.
      origin: `command`, `hardware`, `started`, `versions` of the run.
      calibration: of a grader, the slope and offset that make a probability of its logit; else empty.
      figures: reports of `lungjax evaluate` by file name, of an exported network; a run's lie in its workdir.
    """

    path: Path
    config: Config
    variables: dict[str, Any]
    step: int
    patients: dict[str, splits.Split]
    intensity: str
    origin: dict[str, Any]
    figures: dict[str, Any]
    calibration: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def is_run(self) -> bool:
        """Whether it lies in the workdir of a run."""
        return not (self.path / WEIGHTS_FILE).is_file()


def open_trained(path: Path) -> Trained:
    """Opens a run's workdir or an exported folder.

    Raises:
      InputError: it is neither, or damaged.
    """
    if (path / WEIGHTS_FILE).is_file():
        return _exported(path)
    if (path / folder.CONFIG_FILE).is_file():
        return _run(path)
    raise InputError(f"{path}: neither the workdir of a run nor an exported model.")


def write_exported(trained: Trained, path: Path, *, dtype: str) -> None:
    """`model.safetensors`, its tensors named `params/encoder/...`, and `config.json` into an empty folder.

    Args:
      trained: what to write.
      path: an existing folder.
      dtype: `float32` or `float16`, of the tensors in the file.
    """
    flat = flax.traverse_util.flatten_dict(trained.variables, sep="/")
    tensors = {name: np.ascontiguousarray(value, dtype) for name, value in flat.items()}
    (path / WEIGHTS_FILE).write_bytes(safetensors.numpy.save(tensors))
    known = {
        "schema": SCHEMA,
        "config": trained.config.to_dict(),
        "step": trained.step,
        "intensity": trained.intensity,
        "origin": trained.origin,
        "figures": trained.figures,
        "calibration": trained.calibration,
        "patients": trained.patients,
        "split_digest": splits.digest(trained.patients),
    }
    (path / MODEL_FILE).write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


def _run(path: Path) -> Trained:
    variables, step = checkpoint.load(path)
    split = folder.read_split(path)
    return Trained(
        path=path,
        config=folder.read_config(path),
        variables=variables,
        step=step,
        patients=split["patients"],
        intensity=split["intensity"],
        origin=folder.read_origin(path),
        figures={},
        calibration=calibrate.read(path, step),
    )


def _exported(path: Path) -> Trained:
    try:
        known = json.loads((path / MODEL_FILE).read_text())
        if known["schema"] != SCHEMA:
            raise InputError(f"{path}: was exported by another version of lungjax; export it again.")
        tensors = safetensors.numpy.load((path / WEIGHTS_FILE).read_bytes())
        flat = {name: value.astype(np.float32) for name, value in tensors.items()}
        variables = {"model_state": {}, **flax.traverse_util.unflatten_dict(flat, sep="/")}
        kept = {name: known[name] for name in ("step", "patients", "intensity", "origin", "figures")}
        kept["calibration"] = known.get("calibration", {})
        return Trained(path, ml_collections.ConfigDict(known["config"]), variables, **kept)
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: is no exported model or is damaged ({error}); export it again.") from error
