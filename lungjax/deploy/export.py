"""`lungjax export`: a trained network as a folder that can be handed on, checked to give the same answers."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from lungjax.deploy import card
from lungjax.lidc.scan import InputError
from lungjax.models.encoder import ResNet
from lungjax.tasks import classify, segment
from lungjax.tasks.task import Config
from lungjax.train.trained import Trained, open_trained, write_exported

Dtype = Literal["float16", "float32"]

TOLERANCE = 5e-3
"""Greatest difference of a probability, or of features in units of their largest, that an export may make."""
GOLDEN_PX = 128


def export(model: Path, out: Path, *, dtype: Dtype) -> Path:
    """Writes the network of `model` to the new folder `out`: weights, `config.json`, a model card (`README.md`).

    Args:
      model: a run's workdir, whose reports of `lungjax evaluate` go into the card, or an exported folder.
      out: must not exist, or be empty; written under a temporary name and renamed.
      dtype: of the weights in the file.

    Returns:
      `out`.

    Raises:
      InputError: no such model, a damaged report, `out` holds something, or the written network answers otherwise than
        the original.
    """
    trained = open_trained(model)
    if trained.is_run:
        trained = dataclasses.replace(trained, figures=_figures(model))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is no empty folder; --out names a new one.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as holder:
        temporary = Path(holder) / out.name
        temporary.mkdir()
        write_exported(trained, temporary, dtype=dtype)
        difference = parity(trained, open_trained(temporary))
        if difference > TOLERANCE:
            raise InputError(
                f"{model}: in {dtype} the network answers otherwise by up to {difference:.2g}, more than {TOLERANCE}; "
                "use --dtype float32."
            )
        (temporary / "README.md").write_text(card.text(trained, dtype=dtype, difference=difference))
        temporary.replace(out)
    return out


def _figures(workdir: Path) -> dict[str, Any]:
    """The reports of `lungjax evaluate` in a workdir, by file name."""
    found = {}
    for file in sorted(workdir.glob("evaluation-*.json")):
        try:
            found[file.name] = json.loads(file.read_text())
        except ValueError as error:
            raise InputError(f"{file} is damaged ({error}); evaluate again, or remove it.") from error
    return found


def parity(one: Trained, other: Trained) -> float:
    """Greatest difference between the answers of two networks of one configuration on golden slices.

    Answers are the probabilities of a segmenter or a grader of nodules, else the encoder's pooled features, divided by
    the largest.
    """
    slices = golden_slices()
    first, second = (np.asarray(jax.jit(_answer(t.config))(t.variables, slices)) for t in (one, other))
    if one.config.task not in ("segment", "classify"):
        first, second = first / np.abs(first).max(), second / np.abs(first).max()
    return float(np.abs(first - second).max())


def golden_slices() -> np.ndarray:
    """(4, 128, 128, 1) float32 in [0, 1]: dark lung, bright wall, and a nodule of growing size in each."""
    rows, columns = np.mgrid[:GOLDEN_PX, :GOLDEN_PX]
    noise = np.random.default_rng(0).normal(0, 0.02, (4, GOLDEN_PX, GOLDEN_PX))
    wall = np.where(columns < 30, 0.9, 0.33)
    nodules = [0.55 * (np.hypot(rows - 64, columns - 64) < radius_px) for radius_px in (3, 6, 12, 24)]
    return np.clip(wall + np.stack(nodules) + noise, 0, 1).astype(np.float32)[..., None]


def _answer(config: Config):
    """(variables, (batch, height, width, 1)) -> what the network says of it."""
    if config.task == "segment":
        network = segment.network(config)

        def probability(variables: Any, x: jax.Array) -> jax.Array:
            logits: Any = network.apply({"params": variables["params"], **variables["model_state"]}, x, train=False)
            return jax.nn.sigmoid(logits)

        return probability

    if config.task == "classify":
        grade = classify.make_grade(config)

        def malignant(variables: Any, x: jax.Array) -> jax.Array:
            hu, mm = 1400.0 * x[..., 0] - 1000.0, jnp.full(len(x), config.patch.pixel_mm, jnp.float32)
            return jax.nn.sigmoid(grade(variables["params"], variables["model_state"], hu, mm)[:, 0])

        return malignant

    encoder = ResNet(**config.model.encoder)

    def features(variables: Any, x: jax.Array) -> jax.Array:
        inner = {"params": variables["params"]["encoder"]}
        inner |= {name: state["encoder"] for name, state in variables["model_state"].items()}
        maps: Any = encoder.apply(inner, x, train=False)
        return jnp.mean(maps[-1], axis=(1, 2))

    return features
