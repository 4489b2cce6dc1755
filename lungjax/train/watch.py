"""What the loop watches: the figures of recent steps, losses that are not finite, signals to stop."""

from __future__ import annotations

import collections
import math
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from lungjax import metrics
from lungjax.data.loader import Batch
from lungjax.tasks.task import COUNTS

IN_FLIGHT = 2
"""How many dispatches follow before the figures of one are fetched: the host never waits for the newest."""


OF_LAST = ("learning_rate", "param_norm")
"""What changes slowly: a log has the value of its last step."""


class NotFinite(Exception):
    """The loss of a step is NaN or infinite."""


class Window:
    """The figures of the steps between two logs, fetched `IN_FLIGHT` dispatches late; stops the run if a loss is not
    finite.

    Args:
      workdir: where the batch of such a loss is saved.
      log: called with the last step of a window and its figures, as soon as those of all its steps are there.
      complete: what was added as a batch -> the batch to save.
      replica: which one of several runs that are trained together; the figures of all are added. None for a lone run.
    """

    def __init__(
        self,
        workdir: Path,
        log: Callable[[int, dict[str, float]], None],
        *,
        complete: Callable[[Batch], Batch] = dict,
        replica: int | None = None,
    ):
        self._workdir = workdir
        self._replica = replica
        self._log = log
        self._complete = complete
        self._in_flight: collections.deque = collections.deque()
        self._rows: list[dict[str, np.ndarray]] = []
        self._ends: dict[int, dict[str, float]] = {}

    def add(self, step_number: int, figures: Any, batches: Sequence[Batch], *, of_last: Any = None) -> None:
        """Adds what one dispatch did, and fetches the figures of an older one.

        Args:
          step_number: its last step.
          figures: by name; with a first axis of replicas, where there are several, and one of steps, of several.
          batches: of its steps.
          of_last: figures of its last step alone; of all replicas, too.
        """
        for value in (*figures.values(), *(of_last or {}).values()):
            value.copy_to_host_async()
        self._in_flight.append((step_number, figures, batches, of_last or {}))
        if len(self._in_flight) > IN_FLIGHT:
            self._take()

    def end(self, step_number: int, rates: dict[str, float]) -> None:
        """Ends a window with the step that was added last; `rates` are logged with its figures."""
        self._ends[step_number] = rates

    def flush(self) -> None:
        """Fetches all figures in flight, before a state is stored or validated."""
        while self._in_flight:
            self._take()

    def _figures(self) -> dict[str, float]:
        """`train/NAME` of the steps of the window.

        Scores are of the pixels counted over all these steps, as validation counts over all its batches; what `OF_LAST`
        names is that of the last step; every other figure is the mean over the steps where it is there and finite.
        """
        rows, self._rows = self._rows, []
        averaged = {}
        for name in dict.fromkeys(name for row in rows for name in row):
            values = np.stack([row[name] for row in rows if name in row])
            if name == COUNTS:
                averaged |= metrics.scores(values.sum(axis=0, dtype=np.int64))
            elif name in OF_LAST:
                averaged[name] = values[-1]
            elif (finite := values[np.isfinite(values)]).size:
                averaged[name] = finite.mean(dtype=np.float64)
        return {f"train/{name}": float(value) for name, value in averaged.items()}

    def _take(self) -> None:
        step_number, figures, batches, of_last = self._in_flight.popleft()
        figures = self._own(figures)
        for place, batch in enumerate(batches):
            row = figures if len(batches) == 1 else {name: value[place] for name, value in figures.items()}
            if not math.isfinite(row["loss"]):
                self._give_up(step_number - len(batches) + 1 + place, row["loss"], batch)
            self._rows.append(row)
        self._rows[-1] |= self._own(of_last)
        if step_number in self._ends:
            self._log(step_number, {**self._figures(), **self._ends.pop(step_number)})

    def _own(self, figures: Any) -> dict[str, np.ndarray]:
        """On the host; JAX copies what several windows ask for once."""
        on_host = {name: np.asarray(value) for name, value in jax.device_get(figures).items()}
        return on_host if self._replica is None else {name: value[self._replica] for name, value in on_host.items()}

    def _give_up(self, step_number: int, loss: Any, batch: Batch) -> NoReturn:
        path = self._workdir / f"not-finite-{step_number}-{jax.process_index()}.npz"
        np.savez_compressed(path, allow_pickle=False, **self._complete(batch))
        raise NotFinite(
            f"the loss is {loss} at step {step_number}; its batch is saved in {path}; "
            "lower config.optimizer.learning_rate, or check those slices."
        )


class StopSignal:
    """Whether SIGTERM or Ctrl-C was received. All processes of a job agree on the step at which they stop.

    A second Ctrl-C ends the process at once.
    """

    def __enter__(self) -> StopSignal:
        self._received = False
        self._previous = {}
        if jax.process_count() == 1:  # With several, jax.distributed handles SIGTERM itself.
            self._previous = {
                number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)
            }
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: Any) -> None:
        self._received = True
        signal.signal(number, self._previous[signal.Signals(number)])

    def reached(self, step_number: int) -> bool:
        if jax.process_count() == 1:
            return self._received
        return multihost_utils.reached_preemption_sync_point(step_number)
