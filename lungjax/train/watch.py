"""What the loop watches: the figures of recent steps, losses that are not finite, signals to stop."""

from __future__ import annotations

import collections
import math
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from lungjax import metrics
from lungjax.data.loader import Batch
from lungjax.tasks.task import COUNTS

IN_FLIGHT = 2
"""How many steps are dispatched before the figures of the oldest are fetched: the host never waits for the newest."""


class NotFinite(Exception):
    """The loss of a step is NaN or infinite."""


class Window:
    """The figures since the last log, fetched `IN_FLIGHT` steps late; stops the run if a loss is not finite."""

    def __init__(self, workdir: Path):
        self._workdir = workdir
        self._in_flight: collections.deque = collections.deque()
        self._rows: list[dict[str, np.ndarray]] = []

    def add(self, step_number: int, figures: Any, batch: Batch) -> None:
        for value in figures.values():
            value.copy_to_host_async()
        self._in_flight.append((step_number, figures, batch))
        if len(self._in_flight) > IN_FLIGHT:
            self._take()

    def flush(self) -> None:
        """Fetches all figures in flight, before a state is stored or validated."""
        while self._in_flight:
            self._take()

    def figures(self) -> dict[str, float]:
        """`train/NAME` of the steps fetched since the last call.

        Scores are of the pixels counted over all these steps, as validation counts over all its batches; every other
        figure is the mean over the steps where it is finite.
        """
        if not self._rows:
            self.flush()
        rows, self._rows = self._rows, []
        averaged = {}
        for name in rows[0]:
            values = np.stack([row[name] for row in rows])
            if name == COUNTS:
                averaged |= metrics.scores(values.sum(axis=0, dtype=np.int64))
            elif (finite := values[np.isfinite(values)]).size:
                averaged[name] = finite.mean(dtype=np.float64)
        return {f"train/{name}": float(value) for name, value in averaged.items()}

    def _take(self) -> None:
        step_number, figures, batch = self._in_flight.popleft()
        row = {name: np.asarray(value) for name, value in jax.device_get(figures).items()}
        if not math.isfinite(row["loss"]):
            path = self._workdir / f"not-finite-{step_number}-{jax.process_index()}.npz"
            np.savez_compressed(path, **batch)
            raise NotFinite(
                f"the loss is {row['loss']} at step {step_number}; its batch is saved in {path}; "
                "lower config.optimizer.learning_rate, or check those slices."
            )
        self._rows.append(row)


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
