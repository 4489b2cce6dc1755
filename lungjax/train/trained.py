"""A trained network from where it lies: a run's workdir, an exported folder, or this package, which ships some."""

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
from lungjax.errors import InputError
from lungjax.tasks.task import Config
from lungjax.train import calibrate, checkpoint, torchvision
from lungjax.train import workdir as folder

WEIGHTS_FILE = "model.safetensors"
ORBAX_FOLDER = "checkpoint"
TORCHVISION_FILE = "model.torchvision.safetensors"
STABLEHLO_FILE, ONNX_FILE = "model.stablehlo", "model.onnx"
MODEL_FILE = "config.json"
SCHEMA = 1
SHIPPED = Path(__file__).parents[1] / "weights"
"""Exported folders that come with the package; the name of each is the name of its model."""
ALIASES = {"grader": "nodule-classifier", "patient": "patient-classifier"}
"""Other names of some of them."""


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
      seen: what its slices were like, see `lungjax.data.extent.spacing_extent`; empty for older versions of lungjax.
      origin: `command`, `hardware`, `started`, `versions` of the run.
      calibration: of a classifier, the slope and offset that make a probability of its logit, and the share of
        positives, `prevalence`, that it holds for; of a segmenter, the shares of readers by the `predicted` ones; else
        empty.
      figures: reports of `lungjax evaluate` by file name, of an exported network; a run's lie in its workdir.
    """

    path: Path
    config: Config
    variables: dict[str, Any]
    step: int
    patients: dict[str, splits.Split]
    intensity: str
    seen: dict[str, Any]
    origin: dict[str, Any]
    figures: dict[str, Any]
    calibration: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def is_run(self) -> bool:
        """Whether it lies in the workdir of a run."""
        return not any((self.path / name).exists() for name in (WEIGHTS_FILE, ORBAX_FOLDER))


def path_of(model: Path) -> Path:
    """Where a model lies: at its path, or, where there is nothing, in this package, which ships some by name."""
    name = ALIASES.get(str(model), str(model))
    return SHIPPED / name if not model.exists() and name in shipped() else model


def open_trained(model: Path) -> Trained:
    """Opens a network.

    Args:
      model: a run's workdir, an exported folder, or, where nothing of that name lies, the name of a shipped model.

    Raises:
      InputError: it is none of these, or damaged.
    """
    path = path_of(model)
    if (path / WEIGHTS_FILE).is_file() or (path / ORBAX_FOLDER).is_dir():
        return _exported(path)
    if any(path.glob("model.*")):
        raise InputError(
            f"{model}: was exported to run without lungjax, whose commands read the formats safetensors and orbax "
            "only; in Python, lungjax.load opens it."
        )
    if (path / folder.CONFIG_FILE).is_file():
        return _run(path)
    names = ", ".join(shipped())
    raise InputError(
        f"{model}: neither the workdir of a run nor an exported model, nor one that comes along ({names})."
    )


def shipped() -> list[str]:
    """The names of the models that come with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{WEIGHTS_FILE}"))


def write_exported(trained: Trained, path: Path, *, dtype: str) -> None:
    """`model.safetensors`, its tensors named `params/encoder/...`, and `config.json` into an empty folder.

    Args:
      trained: what to write.
      path: an existing folder.
      dtype: `float32` or `float16`, of the tensors in the file.
    """
    flat = flax.traverse_util.flatten_dict(trained.variables, sep="/")
    (path / WEIGHTS_FILE).write_bytes(_bytes({name: np.asarray(value, dtype) for name, value in flat.items()}))
    write_known(trained, path)


def write_orbax(trained: Trained, path: Path) -> None:
    """The variables as an Orbax checkpoint in the folder `checkpoint`, for `orbax.checkpoint.v1.load`."""
    checkpoint.write_weights(trained.variables, path / ORBAX_FOLDER)


def write_torchvision(trained: Trained, path: Path) -> None:
    """The encoder by torchvision's names, `model.torchvision.safetensors`, into a folder.

    Raises:
      InputError: torchvision has no such encoder.
    """
    tensors = torchvision.from_encoder(trained.variables, trained.config.model.encoder)
    (path / TORCHVISION_FILE).write_bytes(_bytes(tensors))


def open_encoder(model: Path) -> Trained:
    """A network to start another from: as `open_trained`, or a file of a ResNet by torchvision's names.

    Raises:
      InputError: neither.
    """
    if model.suffix != ".safetensors":
        return open_trained(model)
    try:
        variables = torchvision.to_encoder(safetensors.numpy.load(model.read_bytes()))
    except (OSError, safetensors.SafetensorError, InputError) as error:
        raise InputError(f"{model}: {error}") from error
    config = ml_collections.ConfigDict({"task": "torchvision"})
    return Trained(model, config, variables, 0, patients={}, intensity="", seen={}, origin={}, figures={})


def open_torchvision(path: Path) -> Trained:
    """The encoder that `write_torchvision` wrote into an exported folder, by our names.

    Raises:
      InputError: it is damaged.
    """
    try:
        variables = torchvision.to_encoder(safetensors.numpy.load((path / TORCHVISION_FILE).read_bytes()))
    except (OSError, safetensors.SafetensorError, InputError) as error:
        raise _damaged(path, error) from error
    return dataclasses.replace(read_description(path), variables=variables)


def _bytes(tensors: dict[str, np.ndarray]) -> bytes:
    return safetensors.numpy.save({name: np.ascontiguousarray(value) for name, value in tensors.items()})


def write_known(trained: Trained, path: Path, **more: Any) -> None:
    """`config.json` into a folder: all that is known of a network but its weights, and what else is given."""
    known = {
        "schema": SCHEMA,
        "config": trained.config.to_dict(),
        "step": trained.step,
        "intensity": trained.intensity,
        "seen": trained.seen,
        "origin": trained.origin,
        "figures": trained.figures,
        "calibration": trained.calibration,
        "patients": trained.patients,
        "split_digest": splits.digest(trained.patients),
        **more,
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
        seen=split.get("seen", {}),
        origin=folder.read_origin(path),
        figures={},
        calibration=calibrate.read(path, step),
    )


def _exported(path: Path) -> Trained:
    try:
        return dataclasses.replace(read_description(path), variables={"model_state": {}, **_weights(path)})
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise _damaged(path, error) from error


def read_description(path: Path) -> Trained:
    """All that an exported folder, of any format, tells of its network but the weights: `variables` is empty.

    Raises:
      InputError: it is damaged, or of another version of lungjax.
    """
    try:
        known = json.loads((path / MODEL_FILE).read_text())
        if known["schema"] != SCHEMA:
            raise InputError(f"{path}: was exported by another version of lungjax; export it again.")
        kept = {name: known[name] for name in ("step", "patients", "intensity", "origin", "figures")}
        kept |= {"seen": known.get("seen", {}), "calibration": known.get("calibration", {})}
        return Trained(path, ml_collections.ConfigDict(known["config"]), {}, **kept)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: is no exported model or is damaged ({error}); export it again.")


def _weights(path: Path) -> dict[str, Any]:
    if (path / ORBAX_FOLDER).is_dir():
        return checkpoint.read_weights(path / ORBAX_FOLDER)
    tensors = safetensors.numpy.load((path / WEIGHTS_FILE).read_bytes())
    flat = {name: value.astype(np.float32) for name, value in tensors.items()}
    return flax.traverse_util.unflatten_dict(flat, sep="/")
