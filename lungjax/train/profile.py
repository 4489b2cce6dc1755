"""A trace of some steps by JAX's profiler, which TensorBoard and Perfetto show."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from lungjax.errors import InputError

FOLDER = "profile"


def parse_steps(text: str, *, steps: int) -> range:
    """`FROM:TO`, both included -> the numbers of the steps.

    Raises:
      InputError: it is no such text, or the run of `steps` steps has none of them.
    """
    match = re.fullmatch(r"(\d+):(\d+)", text.strip())
    first, last = map(int, match.groups()) if match else (0, 0)
    if not 1 <= first <= last:
        raise InputError(f"--profile_steps={text}: it must be FROM:TO, two numbers of steps such as 20:25, from 1 on.")
    if last > steps:
        raise InputError(f"--profile_steps={text}: the run has {steps} steps; name some of them.")
    return range(first, last + 1)


class Profile:
    """Traces the steps of `steps` into the folder `profile` of a workdir; each process writes a file of its own.

    Args:
      workdir: of the run.
      steps: numbers of steps, one after the other; none are traced where it is empty.
      done: how many steps of the run are done already.
      say: prints a line.
    """

    def __init__(self, workdir: Path, steps: range, *, done: int, say: Callable[[str], None]):
        self._folder = workdir / FOLDER
        self._steps = steps
        self._say = say
        self._traces = False
        if steps and steps[-1] <= done:
            say(f"nothing is traced: step {steps[-1]} is done already")

    def begin(self, first: int, last: int) -> None:
        """Before the steps from `first` to `last` are dispatched."""
        if not self._traces and self._steps and first <= self._steps[-1] and last >= self._steps[0]:
            self._folder.mkdir(exist_ok=True)
            jax.profiler.start_trace(self._folder)
            self._traces = True

    def end(self, step_number: int, outputs: Any) -> None:
        """After steps up to `step_number` were dispatched; waits for their outputs where none after them is traced."""
        if self._traces and step_number >= self._steps[-1]:
            jax.block_until_ready(outputs)
            self._stop()

    def _stop(self) -> None:
        jax.profiler.stop_trace()
        self._traces, self._steps = False, range(0)
        self._say(f"{self._folder} has the trace: tensorboard --logdir {self._folder}")

    def __enter__(self) -> Profile:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._traces:
            self._stop()
