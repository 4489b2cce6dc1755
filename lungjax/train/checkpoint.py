"""Checkpoints of the state; the only module that uses Orbax."""

# Orbax annotates its paths and policies with protocols that its own classes do not declare.
# pyright: reportArgumentType=false

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from lungjax.errors import MACHINE_ERRORS, InputError, ignore_closed_loops
from lungjax.train.state import TrainState

FOLDER = "checkpoints"
_SEAL = "sha256"
"""In a checkpoint's metadata, of its arrays."""
_LEAST_SLICE_BYTES = 2**24
"""Of an array that all devices have, each writes a slice if it is at least this large. Orbax slices all arrays: eight
devices take twenty times as long to write a small network, and compile a program for every shape."""
_policies = ocp.training.preservation_policies


def _context() -> ocp.Context:
    context = ocp.Context()
    context.array_options.saving.min_slice_bytes_for_replica_parallel = _LEAST_SLICE_BYTES
    return context


class Checkpoints:
    """The last `keep` checkpoints of a run and the best one, written in the background.

    Args:
      workdir: the run's folder; checkpoints are stored in its folders `checkpoints/<step>`.
      every: steps between checkpoints; a validated state that is the best so far is always stored.
      keep: how many of the last checkpoints to keep; the one with the highest score is kept as well.
    """

    def __init__(self, workdir: Path, *, every: int, keep: int):
        self._folder = (workdir / FOLDER).absolute()
        with _damage(f"a checkpoint in {self._folder}"):  # The scores of all are read.
            self._checkpointer = ocp.training.Checkpointer(
                self._folder,
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
                context=_context(),
            )
            # For a resumed run: the best checkpoint is among those kept, so this is the best score of the whole run.
            self._best: float = max(map(_score, self._checkpointer.checkpoints), default=-math.inf)
        self._writing: Any = None  # Orbax's promise.

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: Any) -> None:
        with _disk_errors(self._folder):
            self._checkpointer.close()

    def wants(self, step: int, *, score: float | None) -> bool:
        """Whether a state is to be stored: a checkpoint is due, its score is the best so far, or it is stored already.

        Runs that are trained together store the states of a step together: so where they are killed, all have one of
        the same step.
        """
        latest = self._checkpointer.latest
        stored = latest is not None and latest.step == step
        return stored or (score is not None and score > self._best) or self._checkpointer.should_save(step)

    def wait(self) -> None:
        """Returns when everything is written; raises an OSError where something cannot be."""
        with _disk_errors(self._folder):
            if self._writing is not None:
                self._writing.result()
            self._writing = None

    def save(
        self,
        step: int,
        state: TrainState,
        *,
        score: float | None,
        force: bool = False,
    ) -> None:
        """Starts writing if a checkpoint is due or the score is the best so far; returns when the arrays are copied.

        Args:
          step: the number of steps done.
          state: what to store.
          score: of this state on the validation patients, higher is better; None if it was not measured.
          force: save even if no checkpoint is due. A step that is already saved is not saved again.

        Raises:
          OSError: this one, or the one before, cannot be written; the earlier ones are whole.
        """
        wanted = force or self.wants(step, score=score)
        self._best = max(self._best, -math.inf if score is None else score)
        latest = self._checkpointer.latest
        if (latest is not None and latest.step == step) or not wanted:
            return
        digest = _digest(state)
        with _disk_errors(self._folder):
            self._writing = self._checkpointer.save_checkpointables_async(
                step,
                {"state": state},
                metrics=None if score is None else {"score": score},
                custom_metadata=None if digest is None else {_SEAL: digest},
                force=True,
            )

    def restore(self, state: TrainState, *, step: int) -> TrainState:
        """The state that was stored at `step`, sharded as `state`.

        Raises:
          InputError: it is damaged, or its arrays are not those of `state`, which Orbax would cast without a word.
        """
        with _damage(self._folder / str(step)):
            metadata = self._checkpointer.metadata(step)
        _check_same_arrays(metadata.metadata, state, where=f"{self._folder / str(step)}")
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
        with _damage(self._folder / str(step)):
            loaded = self._checkpointer.load_checkpointables(step, {"state": abstract})["state"]
            _check_seal(metadata, loaded)
        return loaded


def _check_same_arrays(stored: Any, state: TrainState, *, where: str) -> None:
    """Raises InputError where a stored array is missing, or has another shape or dtype than that of `state`."""
    theirs, ours = _arrays(stored), _arrays(state)
    for name in sorted(theirs.keys() | ours.keys()):
        if theirs.get(name) != ours.get(name):
            has, wants = (" ".join(map(str, of[name])) if name in of else "no such array" for of in (theirs, ours))
            raise InputError(
                f"{where}: {name} is {has} there and {wants} here; resume with the lungjax that began this run, or "
                "choose a new --workdir."
            )


def _arrays(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of each array by its path."""
    return {name: (tuple(leaf.shape), np.dtype(leaf.dtype).name) for name, leaf in _by_path(tree).items()}


def _by_path(tree: Any) -> dict[str, Any]:
    """Arrays by their path, the same for attributes, keys and places."""
    return {
        "/".join(str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", "")))) for key in path): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def _digest(state: Any) -> str | None:
    """SHA-256 of all arrays, which are copied to the host; None where a part of one is on another machine."""
    arrays = _by_path(state)
    if not all(getattr(leaf, "is_fully_addressable", True) or leaf.is_fully_replicated for leaf in arrays.values()):
        return None
    digest = hashlib.sha256()
    for name, leaf in sorted(arrays.items()):
        digest.update(f"{name} {leaf.dtype} {leaf.shape} ".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _check_seal(metadata: Any, state: Any) -> None:
    """Raises ValueError where arrays are not those that were saved: TensorStore 0.1.86 reads some flipped bits as they
    are. Of checkpoints without a seal nothing is known."""
    seal = (metadata.custom_metadata or {}).get(_SEAL)
    if seal is not None and _digest(state) not in (seal, None):
        raise ValueError("its arrays are not those that were saved")


@contextlib.contextmanager
def _damage(checkpoint: Path | str) -> Iterator[None]:
    """Raises an InputError for what Orbax and TensorStore raise of a damaged checkpoint; errors of the disk stay."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
            raise
        why = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise InputError(
            f"{checkpoint} is damaged ({why}); remove its folder, and the run goes on from the checkpoint before it, "
            "if there is one."
        ) from error


@contextlib.contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Raises errors of the disk as the OSError that they are; TensorStore names its number in a text."""
    ignore_closed_loops()
    try:
        yield
    except Exception as error:
        number = re.search(r"os_error_code='(\d+)'", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(folder)) from error


def _score(info: Any) -> float:
    """The score of a checkpoint that Orbax lists; minus infinity where it was not validated."""
    return info.metrics["score"] if info.metrics else -math.inf


def write_weights(variables: dict[str, Any], path: Path) -> None:
    """Writes {"params", "model_state"} as a checkpoint of its own, for `ocp.load(path)`; `path` must not exist.

    After an error, files may still be written in the background: see `lungjax.train.weights_process`.
    """
    with _disk_errors(path):
        ocp.save(path.absolute(), jax.tree.map(np.asarray, variables))


def read_weights(path: Path) -> dict[str, Any]:
    """What `write_weights` wrote, as NumPy arrays.

    Raises:
      ValueError: it is damaged.
    """
    try:
        return ocp.load(path.absolute(), jax.tree.map(lambda x: np.empty(x.shape, x.dtype), _metadata(path)))
    except (ocp.errors.InvalidLayoutError, FileNotFoundError) as error:
        raise ValueError(str(error)) from error


def weight_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Of the arrays that `write_weights` wrote, by names such as `params/encoder/stem/kernel`; none of them is read.

    Raises:
      ValueError: it is damaged.
    """
    return {name: shape for name, (shape, _) in _arrays(_metadata(path)).items()}


def _metadata(path: Path) -> Any:
    try:
        return ocp.metadata(path.absolute()).metadata
    except (ocp.errors.InvalidLayoutError, FileNotFoundError) as error:
        raise ValueError(str(error)) from error


def has_checkpoint(workdir: Path) -> bool:
    """Whether a run has finished a checkpoint."""
    return bool(stored_steps(workdir))


def stored_steps(workdir: Path) -> set[int]:
    """The steps of a run's finished checkpoints.

    Looks only at the names of folders: Orbax would wait for the run's other processes, which may be ahead already.
    """
    folder = workdir / FOLDER
    return {int(path.name) for path in folder.iterdir() if path.name.isdecimal()} if folder.is_dir() else set()


def load_best(workdir: Path) -> tuple[dict[str, Any], int]:
    """Parameters and model state of a run's best checkpoint, or of its last where none was validated; or their
    exponential moving average where the run kept one.

    Args:
      workdir: a training run's folder.

    Returns:
      ({"params", "model_state"} of NumPy arrays, step).

    Raises:
      InputError: there is no checkpoint, or it is damaged.
    """
    folder = workdir / FOLDER
    if not folder.is_dir():
        raise InputError(f"{workdir}: no checkpoints in it; give the workdir of a training run.")
    with _damage(f"a checkpoint in {folder}"):
        opened = ocp.training.Checkpointer(folder.absolute())
    with opened as checkpointer:
        infos = list(checkpointer.checkpoints)
        if not infos:
            raise InputError(f"{workdir}: no finished checkpoint yet; let the run reach its first one.")
        with _damage(f"a checkpoint in {folder}"):
            chosen = max(infos, key=_score) if any(info.metrics for info in infos) else infos[-1]
        with _damage(folder / str(chosen.step)):
            metadata = checkpointer.metadata(chosen.step)
            # As NumPy arrays: the devices of the run need not be those of this process.
            shapes = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), metadata.metadata)
            state = checkpointer.load(chosen.step, shapes)
            _check_seal(metadata, state)
    params, model_state = state.get("average") or (state["params"], state["model_state"])
    return {"params": params, "model_state": model_state or {}}, chosen.step
