"""What the loop keeps an eye on: figures in flight, losses that are not finite, signals to stop."""

from __future__ import annotations

import collections
import math
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from lungjax.data.loader import Batch

IN_FLIGHT = 2
"""Steps dispatched before the figures of the oldest are looked at: the host never waits for the newest."""


class NotFinite(Exception):
    """The loss of a step is NaN or infinite."""


class Window:
    """Figures since the last log, fetched `IN_FLIGHT` steps late; ends the run where a loss is not finite."""

    def __init__(self, workdir: Path):
        self._workdir = workdir
        self._in_flight: collections.deque = collections.deque()
        self._rows: list[dict[str, float]] = []

    def add(self, step_number: int, figures: Any, batch: Batch) -> None:
        for value in figures.values():
            value.copy_to_host_async()
        self._in_flight.append((step_number, figures, batch))
        if len(self._in_flight) > IN_FLIGHT:
            self._take()

    def flush(self) -> None:
        """Looks at all that is in flight, before a state is stored or judged."""
        while self._in_flight:
            self._take()

    def mean(self) -> dict[str, float]:
        """Means of the fetched steps as `train/NAME`, over those where a figure is defined; starts anew.

        Where nothing is predicted, for instance, precision is NaN and left out.
        """
        if not self._rows:
            self.flush()
        rows, self._rows = self._rows, []
        means = {}
        for name in rows[0]:
            defined = [row[name] for row in rows if math.isfinite(row[name])]
            if defined:
                means[f"train/{name}"] = float(np.mean(defined))
        return means

    def _take(self) -> None:
        step_number, figures, batch = self._in_flight.popleft()
        row = {name: float(value) for name, value in jax.device_get(figures).items()}
        if not math.isfinite(row["loss"]):
            path = self._workdir / f"not-finite-{step_number}-{jax.process_index()}.npz"
            np.savez_compressed(path, **batch)
            raise NotFinite(
                f"the loss is {row['loss']} at step {step_number}; its batch is saved in {path}; "
                "lower config.optimizer.learning_rate or look at those slices."
            )
        self._rows.append(row)


class StopSignal:
    """Whether a SIGTERM or a Ctrl-C has come. All processes of a job agree on the step at which they stop.

    A second Ctrl-C ends the process at once.
    """

    def __enter__(self) -> StopSignal:
        self._received = False
        self._previous = {}
        if jax.process_count() == 1:  # With several, jax.distributed listens to SIGTERM itself.
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
