"""Networks of every task with random weights, as exported folders: no training, nothing compiled."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import runs

from lungjax.tasks import classify, diagnose, pretrain, segment, sift
from lungjax.tasks.task import Config
from lungjax.train import checkpoint, mesh, trained
from lungjax.train import workdir as begun
from lungjax.train.state import TrainState

TASKS = {"segment": segment, "simclr": pretrain, "sift": sift, "classify": classify, "diagnose": diagnose}
SIDE_PX, NODULES = 40, 3


def small_config(kind: str, **encoder: Any) -> Config:
    """Of a file of configs/, narrow; `encoder` changes config.model.encoder."""
    if kind in ("segment", "simclr"):
        config = runs.small_config(kind, Path("data"))
    else:
        config = runs.load_config(kind)
        config.model.encoder.width = config.model.hidden = 8
        if kind != "sift":
            config.model.width = 8
        config.patch.side_px = 32
    if kind == "diagnose":
        config.data.nodules = NODULES
    config.model.encoder.update(encoder)
    return config


def made(kind: str, folder: Path, *, context: int = 0, context_mm: float = 0.0, **encoder: Any) -> Path:
    """Writes the network of `small_config` to the new folder, in safetensors."""
    config = small_config(kind, **encoder)
    if context:
        config.data.context, config.data.context_mm = context, context_mm
    task = TASKS[kind].make(config, intensity="hu", readers=4, mesh=mesh.make_mesh(8))
    side_px = int(config.data.crop_px) or SIDE_PX
    planes = (2 * context + 1,) if context else ()
    batch = {"image": np.zeros((2, *planes, side_px, side_px), np.int16), "inside": np.ones((2, NODULES), np.float32)}
    params, model_state = jax.eval_shape(task.init, jax.random.key(0), batch)
    rng = np.random.default_rng(0)
    variables = jax.tree.map_with_path(lambda path, x: random(path[-1].key, x.shape, rng), (params, model_state))
    folder.mkdir(parents=True)
    trained.write_exported(
        trained.Trained(
            path=folder,
            config=config,
            variables=dict(zip(("params", "model_state"), variables, strict=True)),
            step=3,
            patients={"LIDC-IDRI-0001": "test", "LIDC-IDRI-0002": "train"},
            intensity="hu",
            seen={"side_px": SIDE_PX},
            origin={},
            figures={},
            calibration={} if kind in ("segment", "simclr") else {"slope": 0.5, "offset": -0.3, "fitted_on": 7},
        ),
        folder,
        dtype="float32",
    )
    return folder


def workdir(kind: str, folder: Path) -> Path:
    """The network of `made` as a run would have kept it: the average at its third step, beside other weights."""
    model = trained.open_trained(made(kind, folder / "exported"))
    average = model.variables["params"], model.variables["model_state"]
    params, model_state = jax.tree.map(lambda x: x + 1, average)
    state = TrainState(np.array(3, np.int32), params, model_state, {}, average)  # pyright: ignore[reportArgumentType]
    kept = folder / "run"
    kept.mkdir()
    with checkpoint.Checkpoints(kept, every=1, keep=1) as checkpoints:
        checkpoints.save(3, jax.tree.map(jax.numpy.asarray, state), score=0.5)
    begun.record_run(kept, model.config, model.patients, intensity="hu", seen=model.seen)
    return kept


def random(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """As of a trained network: no norm's scale is 0 or 1, no statistic is that of a fresh one."""
    noise = rng.normal(size=shape)
    if name == "kernel":
        return (noise * math.sqrt(1 / math.prod(shape[:-1]))).astype(np.float32)
    middle = 1.0 if name in ("scale", "var") else 0.0
    return (middle + 0.2 * np.clip(noise, -2, 2)).astype(np.float32)


def damaging(write: Callable[..., None]) -> Callable[..., None]:
    """`write(trained, ...)`, but of a network whose first kernel is another."""

    def damaged(model: trained.Trained, *rest: Any, **named: Any) -> None:
        encoder = model.variables["params"]["encoder"]
        changed = {**encoder, "stem": {"kernel": encoder["stem"]["kernel"] + 0.2}}
        params = {**model.variables["params"], "encoder": changed}
        write(dataclasses.replace(model, variables={**model.variables, "params": params}), *rest, **named)

    return damaged
