"""What a run writes while it trains: figures, pictures, checkpoints."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from lungjax.data.loader import Batch
from lungjax.train import logs
from lungjax.train.checkpoint import Checkpoints
from lungjax.train.evals import Validation
from lungjax.train.runs import Run
from lungjax.train.state import TrainState
from lungjax.train.watch import Window


class Outputs:
    """Of one run; it opens what is closed at the end of a `with` block.

    Args:
      run: the run.
      validation: its validation.
      progress: to print to.
      replica: which of several runs that are trained together; None for a lone one.
      complete: what was added as a batch -> the batch to save where its loss is not finite.
      write: whether this process writes figures.

    Attributes:
      checkpoints: the run's.
      score: of the state of this step on the validation patients; None where it was not validated.
    """

    def __init__(
        self,
        run: Run,
        validation: Validation,
        progress: logs.Progress,
        *,
        replica: int | None,
        complete: Callable[[Batch], Batch],
        write: bool,
    ):
        self._run = run
        self._validation = validation
        self._progress = progress
        self._replica = replica
        self._writer = logs.Writer(run.workdir, write=write)
        self._window = Window(run.workdir, self._log, complete=complete, replica=replica)
        config = run.config
        # Replicas are stored one after the other; until all are, each has the checkpoint before.
        keep = config.keep_checkpoints if replica is None else max(config.keep_checkpoints, 2)
        self.checkpoints = Checkpoints(run.workdir, every=config.checkpoint_every, keep=keep)
        self.score: float | None = None

    def __enter__(self) -> Outputs:
        self._closed = contextlib.ExitStack()
        self._closed.enter_context(self.checkpoints)
        self._closed.enter_context(self._writer)
        return self

    def __exit__(self, *error: Any) -> None:
        self._closed.__exit__(*error)

    def start(self, first_step: int) -> None:
        """Goes on after `first_step`."""
        self._writer.start(first_step)

    def add(self, done: int, figures: Any, batches: Sequence[Batch], *, of_last: Any) -> None:
        """Adds the figures of the steps up to `done`, see `Window.add`."""
        self._window.add(done, figures, batches, of_last=of_last)
        self.score = None

    def end(self, done: int, rates: dict[str, float]) -> None:
        """Has the figures since the last call be logged with those rates, once they are there."""
        self._window.end(done, rates)

    def flush(self) -> None:
        """Waits for all figures; after that the loss of every step is known to be finite."""
        self._window.flush()

    def validate(self, done: int, state: TrainState, *, best: str) -> None:
        """Writes the figures of `state` on the validation patients, of which `best` is the score, and pictures."""
        found = self._validation.scores(state)
        self.score = found[best]
        whose = "" if self._replica is None else f"{self._run.workdir.name}, "
        values = ", ".join(f"val {name} {value:.4g}" for name, value in found.items())
        self._progress.say(f"{whose}step {done}: {values}")
        self._writer.write(done, {f"val/{name}": value for name, value in found.items()})
        self._validation.draw(state, self._run.workdir, done)

    def _log(self, number: int, figures: dict[str, float]) -> None:
        if not self._replica:  # Of replicas, the first one's are shown.
            self._progress.show(number, figures)
        self._writer.write(number, figures)


def save(outputs: Sequence[Outputs], done: int, states: Sequence[TrainState], *, force: bool) -> None:
    """Stores the states of runs that are trained together, of all of them where one is to be stored: wherever the
    process is killed, they have a step in common from which they go on.

    Args:
      outputs: of the runs.
      done: the number of steps done.
      states: of the runs.
      force: store them even if no checkpoint is due and none is the best so far.
    """
    if not force and not any(own.checkpoints.wants(done, score=own.score) for own in outputs):
        return
    for own in outputs:
        own.checkpoints.wait()
    for own, state in zip(outputs, states, strict=True):
        own.checkpoints.save(done, state, score=own.score, force=True)
