"""Trained networks: opened from a run's workdir, an exported folder or the bundled models, and written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import flax.traverse_util
import ml_collections
import numpy as np
import safetensors.numpy

from lungjax import json_files, paths
from lungjax.data import splits
from lungjax.errors import InputError
from lungjax.tasks.task import Config
from lungjax.train import calibrate, devices, model_checks, torchvision, weights_process
from lungjax.train import workdir as folder

WEIGHTS_FILE = "model.safetensors"
ORBAX_FOLDER = "checkpoint"
TORCHVISION_FILE = "model.torchvision.safetensors"
STABLEHLO_FILE, ONNX_FILE = "model.stablehlo", "model.onnx"
MODEL_FILE = "config.json"
SCHEMA = 1
SHIPPED = Path(__file__).parents[1] / "weights"
"""The bundled models: exported folders, each named like its model."""
ALIASES = {"grader": "nodule-classifier", "patient": "patient-classifier"}
"""Other names of bundled models."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network, and what is needed to use it.

    Attributes:
      path: the folder it was opened from.
      config: the configuration it was trained with.
      variables: {"params", "model_state"}, nested dicts of float32 arrays.
      step: the step of the run at which it was stored.
      patients: the split of each patient of the data it was trained with, for the leak lock.
      intensity: of that data.
      seen: the spacings and sizes of its training slices, see `lungjax.data.extent.spacing_extent`; empty for models of
        older versions of lungjax.
      origin: `command`, `hardware`, `started` and `versions` of the run.
      calibration: for a classifier, the slope and offset that turn its logit into a probability, and the share of
        positives, `prevalence`, that it holds for; for a segmenter, the `share` of readers by the `predicted` one, that
        among those who mark anything in the slice, `outline` by `outline_predicted`, and how many do, by
        `marking_weights`, see `lungjax.train.calibrate.drawn_share`; otherwise empty.
      figures: of an exported network, reports of `lungjax evaluate` by file name; a run has them in its workdir.
      operating_points: thresholds for whole scans, see `lungjax.prediction.operating_point`: `false_positives_a_scan`
        and `threshold`, lists of which the first ascends; `default`, which of these rates is used; `fitted_on`, words;
        `odds_factor`, from the odds of its training candidates to those of whole scans, 1 where it is missing. Empty
        where none were fitted.
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
    operating_points: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def is_run(self) -> bool:
        """Whether it was opened from a run's workdir."""
        return not any((self.path / name).exists() for name in (WEIGHTS_FILE, ORBAX_FOLDER))


def path_of(model: Path) -> Path:
    """The folder of a model: its path or, where nothing exists at that path, the bundled model of that name."""
    model = paths.local(model)
    name = ALIASES.get(str(model), str(model))
    return SHIPPED / name if not model.exists() and name in bundled_models() else model


def open_trained(model: Path) -> Trained:
    """Opens a network.

    Args:
      model: a run's workdir, an exported folder, or the name of a bundled model.

    Raises:
      InputError: it is none of these, or it is damaged.
    """
    devices.find()
    path = path_of(model)
    if (path / WEIGHTS_FILE).is_file() or (path / ORBAX_FOLDER).is_dir():
        return _open_exported(path)
    if any(path.glob("model.*")):
        raise InputError(
            f"{model}: was exported to run without lungjax; lungjax's commands read the formats safetensors and orbax "
            "only. In Python, lungjax.load opens it."
        )
    if (path / folder.CONFIG_FILE).is_file():
        return _open_run(path)
    names = ", ".join(bundled_models())
    raise InputError(
        f"{model}: neither a run's workdir nor an exported folder, nor the name of a bundled model ({names})."
    )


def bundled_models() -> list[str]:
    """The names of the bundled models."""
    return sorted(path.parent.name for path in SHIPPED.glob(f"*/{WEIGHTS_FILE}"))


def write_exported(trained: Trained, path: Path, *, dtype: str) -> None:
    """Writes `model.safetensors`, with tensors named `params/encoder/...`, and `config.json` into an empty folder.

    Args:
      trained: the network to write.
      path: an existing folder.
      dtype: `float32` or `float16`, of the tensors in the file.
    """
    flat = flax.traverse_util.flatten_dict(trained.variables, sep="/")
    (path / WEIGHTS_FILE).write_bytes(_bytes({name: np.asarray(value, dtype) for name, value in flat.items()}))
    write_description(trained, path)


def write_operating_points(trained: Trained, points: dict[str, Any]) -> None:
    """Stores thresholds for whole scans with a network: in its run's workdir, or in its exported folder."""
    if trained.is_run:
        folder.write_operating_points(trained.path, points)
    else:
        write_description(dataclasses.replace(trained, operating_points=points), trained.path)


def write_orbax(trained: Trained, path: Path) -> None:
    """Writes the variables as an Orbax checkpoint into the folder `checkpoint`, for `orbax.checkpoint.v1.load`."""
    weights_process.write_weights(trained.variables, path / ORBAX_FOLDER)


def write_torchvision(trained: Trained, path: Path) -> None:
    """Writes the encoder's weights by torchvision's names, `model.torchvision.safetensors`, into a folder.

    Raises:
      InputError: torchvision has no such encoder.
    """
    tensors = torchvision.from_encoder(trained.variables, trained.config.model.encoder)
    (path / TORCHVISION_FILE).write_bytes(_bytes(tensors))


def open_encoder(model: Path) -> Trained:
    """Opens a network to start another from: as `open_trained`, or a file of ResNet weights by torchvision's names.

    Raises:
      InputError: it is neither.
    """
    model = paths.local(model)
    if model.suffix != ".safetensors":
        return open_trained(model)
    try:
        variables = torchvision.to_encoder(safetensors.numpy.load(model.read_bytes()))
    except (OSError, safetensors.SafetensorError, InputError) as error:
        raise InputError(f"{model}: {error}") from error
    config = ml_collections.ConfigDict({"task": "torchvision"})
    return Trained(model, config, variables, 0, patients={}, intensity="", seen={}, origin={}, figures={})


def open_torchvision(path: Path) -> Trained:
    """Opens an encoder that `write_torchvision` wrote into an exported folder.

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


def write_description(trained: Trained, path: Path, **more: Any) -> None:
    """Writes `config.json` into a folder: the description of a network without its weights, and `more`."""
    description = {
        "schema": SCHEMA,
        "config": trained.config.to_dict(),
        "step": trained.step,
        "intensity": trained.intensity,
        "seen": trained.seen,
        "origin": trained.origin,
        "figures": trained.figures,
        "calibration": trained.calibration,
        "operating_points": trained.operating_points,
        "patients": trained.patients,
        "split_digest": splits.digest(trained.patients),
        **more,
    }
    if (path / WEIGHTS_FILE).is_file():
        description["weights_sha256"] = _digest(path)
    (path / MODEL_FILE).write_text(json.dumps(json_files.sealed(description), indent=1, sort_keys=True) + "\n")


def _digest(path: Path) -> str:
    with (path / WEIGHTS_FILE).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_run(path: Path) -> Trained:
    from lungjax.train import checkpoint  # Here, for Orbax takes long to import, and most models are no checkpoints.

    variables, step = checkpoint.load_best(path)
    split = folder.read_split(path)
    description = {
        "step": step,
        "patients": split["patients"],
        "intensity": split.get("intensity"),
        "seen": split.get("seen", {}),
        "origin": folder.read_origin(path),
        "figures": {},
        "calibration": calibrate.read_calibration(path, step),
        "operating_points": folder.read_operating_points(path),
    }
    config = folder.read_config(path)
    try:
        model_checks.check_description({"config": config.to_dict(), **description})
        flat: dict[str, Any] = flax.traverse_util.flatten_dict(variables, sep="/")
        model_checks.check_network(config, {name: tuple(array.shape) for name, array in flat.items()})
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is no run of lungjax, or is damaged ({error}); train again.") from error
    return Trained(path=path, config=config, variables=variables, **description)


def _open_exported(path: Path) -> Trained:
    described = read_description(path)
    try:
        if path.parent != SHIPPED:  # Those of ours are tested; to trace a network takes a moment.
            model_checks.check_network(described.config, _stored_shapes(path))
        _check_weights(path)
        return dataclasses.replace(described, variables={"model_state": {}, **_weights(path)})
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise _damaged(path, error) from error


def read_description(path: Path) -> Trained:
    """Reads the description of a network, without its weights, from an exported folder of any format.

    Raises:
      InputError: it is damaged, or was written by another version of lungjax.
    """
    try:
        description = json_files.read(path / MODEL_FILE)
        if description["schema"] != SCHEMA:
            raise InputError(
                f"{path}: was exported by another version of lungjax, with schema {description['schema']}, and this "
                f"one reads {SCHEMA}; export it again with this version."
            )
        description = json_files.unsealed(description)
        model_checks.check_description(description)
        fields = {name: description[name] for name in ("step", "patients", "intensity", "origin", "figures")}
        fields |= {name: description.get(name, {}) for name in ("seen", "calibration", "operating_points")}
        return Trained(path, ml_collections.ConfigDict(description["config"]), {}, **fields)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: is not an exported model, or is damaged ({error}); export it again.")


def _check_weights(path: Path) -> None:
    """Raises ValueError where the weights are not those that were written with the description; older versions did not
    store their SHA-256."""
    digest = json_files.read(path / MODEL_FILE).get("weights_sha256")
    if digest is not None and (path / WEIGHTS_FILE).is_file() and digest != _digest(path):
        raise ValueError(f"{WEIGHTS_FILE} was changed after it had been written")


def _stored_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Of an exported folder's arrays, by their names, before any is read."""
    if (path / ORBAX_FOLDER).is_dir():
        from lungjax.train import checkpoint  # As above.

        return checkpoint.weight_shapes(path / ORBAX_FOLDER)
    with safetensors.safe_open(path / WEIGHTS_FILE, framework="numpy") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  It is no dict.


def _weights(path: Path) -> dict[str, Any]:
    if (path / ORBAX_FOLDER).is_dir():
        from lungjax.train import checkpoint  # As above.

        return checkpoint.read_weights(path / ORBAX_FOLDER)
    tensors = safetensors.numpy.load((path / WEIGHTS_FILE).read_bytes())
    flat = {name: value.astype(np.float32) for name, value in tensors.items()}
    return flax.traverse_util.unflatten_dict(flat, sep="/")
