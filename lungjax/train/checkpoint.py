"""Checkpoints: the state and the loader's position together; the only file that knows Orbax."""

# Orbax types its paths and policies by protocols that its own classes do not declare.
# pyright: reportArgumentType=false

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from lungjax.errors import InputError
from lungjax.train.state import TrainState

FOLDER = "checkpoints"
_policies = ocp.training.preservation_policies


class Checkpoints:
    """The last `keep` checkpoints of a run and the best one, written in the background.

    Args:
      workdir: of the run; checkpoints lie in its folder `checkpoints/<step>`.
      every: steps between checkpoints; a state that is validated and the best so far is always stored.
      keep: how many of the last to keep; the one with the highest score is kept, too.
    """

    def __init__(self, workdir: Path, *, every: int, keep: int):
        self._checkpointer = ocp.training.Checkpointer(
            (workdir / FOLDER).absolute(),
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(every),
            preservation_policy=_policies.AnyPreservationPolicy(
                [
                    _policies.LatestN(keep),
                    _policies.BestN(
                        get_metric_fn=lambda figures: figures["score"],
                        n=1,
                        keep_checkpoints_without_metrics=False,
                    ),
                ]
            ),
            cleanup_tmp_directories=True,
        )
        # Of a run that goes on: the best is among those kept, so it is that of a run that was never stopped.
        self._best: float = max(map(_score, self._checkpointer.checkpoints), default=-math.inf)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: Any) -> None:
        self._checkpointer.close()

    def save(
        self,
        step: int,
        state: TrainState,
        data: grain.DatasetIterator,
        *,
        score: float | None,
        force: bool = False,
    ) -> None:
        """Starts writing if a checkpoint is due or the score is the best so far; returns once the arrays are copied.

        Args:
          step: steps done.
          state, data: what to store.
          score: of this state on the validation patients, higher is better; None if it was not measured.
          force: save whether due or not. A step that is saved already is left alone.
        """
        if score is not None and score > self._best:
            self._best, force = score, True
        latest = self._checkpointer.latest
        if latest is not None and latest.step == step:
            return
        self._checkpointer.save_checkpointables_async(
            step,
            {"state": state, "data": data},
            metrics=None if score is None else {"score": score},
            force=force,
        )

    def restore(self, state: TrainState, data: grain.DatasetIterator) -> TrainState | None:
        """The latest state, placed as `state` is, with `data` moved to its position; None where there is none."""
        latest = self._checkpointer.latest
        if latest is None:
            return None
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
        loaded = self._checkpointer.load_checkpointables(latest.step, {"state": abstract, "data": data})
        return loaded["state"]


def _score(info: Any) -> float:
    """Of a checkpoint that Orbax lists; less than any where it was not validated."""
    return info.metrics["score"] if info.metrics else -math.inf


def write_weights(variables: dict[str, Any], path: Path) -> None:
    """{"params", "model_state"} as a checkpoint of its own, at a path where nothing is; for `ocp.load(path)`."""
    ocp.save(path.absolute(), jax.tree.map(np.asarray, variables))


def read_weights(path: Path) -> dict[str, Any]:
    """What `write_weights` wrote, as NumPy arrays.

    Raises:
      ValueError: it is damaged.
    """
    try:
        known = ocp.metadata(path.absolute()).metadata
        return ocp.load(path.absolute(), jax.tree.map(lambda x: np.empty(x.shape, x.dtype), known))
    except (ocp.errors.InvalidLayoutError, FileNotFoundError) as error:
        raise ValueError(str(error)) from error


def has_one(workdir: Path) -> bool:
    """Whether a run has finished a checkpoint.

    By the names of folders alone: Orbax would wait for the run's other processes, of which one may be ahead already.
    """
    folder = workdir / FOLDER
    return folder.is_dir() and any(path.name.isdecimal() for path in folder.iterdir())


def load(workdir: Path) -> tuple[dict[str, Any], int]:
    """Parameters and model state of a run's best checkpoint, or of its last where none was validated; their average
    where the run kept one.

    Args:
      workdir: of a training run.

    Returns:
      ({"params", "model_state"} of NumPy arrays, step).

    Raises:
      InputError: no checkpoint is there.
    """
    folder = workdir / FOLDER
    if not folder.is_dir():
        raise InputError(f"{workdir}: no checkpoints in it; give the workdir of a training run.")
    with ocp.training.Checkpointer(folder.absolute()) as checkpointer:
        infos = list(checkpointer.checkpoints)
        if not infos:
            raise InputError(f"{workdir}: no finished checkpoint yet; let the run reach its first one.")
        chosen = max(infos, key=_score) if any(info.metrics for info in infos) else infos[-1]
        known = checkpointer.metadata(chosen.step).metadata
        # As NumPy arrays: the devices of the run need not be those of this process.
        state = checkpointer.load(chosen.step, jax.tree.map(lambda x: np.empty(x.shape, x.dtype), known))
    params, model_state = state.get("average") or (state["params"], state["model_state"])
    return {"params": params, "model_state": model_state or {}}, chosen.step
