"""Where a run's figures go: metrics.jsonl, TensorBoard, the progress line, plots."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboardX.summary import scalar
from tqdm import tqdm

METRICS_FILE = "metrics.jsonl"
TENSORBOARD = "tensorboard"


class Writer:
    """Appends figures to `metrics.jsonl` and to TensorBoard's events; does nothing where `write` is false.

    A resumed run first removes what was written after its checkpoint, so that every step appears once.
    """

    def __init__(self, workdir: Path, *, write: bool):
        self._workdir = workdir
        self._write = write
        self._file: IO[str] | None = None
        self._events: EventsWriter | None = None

    def start(self, resume_step: int) -> None:
        """Opens the files, to continue after `resume_step`."""
        if not self._write:
            return
        path = self._workdir / METRICS_FILE
        if path.exists():
            _truncate(path, resume_step)
        self._file = path.open("a")
        (self._workdir / TENSORBOARD).mkdir(exist_ok=True)
        # Not its SummaryWriter: that writes in a thread, and waits for ever for one that a full disk has ended.
        self._events = EventsWriter(str(self._workdir / TENSORBOARD / "events"))
        self._events.write_event(Event(step=resume_step + 1, session_log=SessionLog(status=SessionLog.START)))

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: Any) -> None:
        for opened in (self._file, self._events):  # One, where a disk that is full let only one be opened.
            if opened is not None:
                opened.close()

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Writes a line and flushes it, so that a killed run loses none."""
        if self._file is None or self._events is None:
            return
        self._file.write(json.dumps({"step": step, **figures}) + "\n")
        self._file.flush()
        for name, value in figures.items():
            self._events.write_event(Event(wall_time=time.time(), step=step, summary=scalar(name, value)))
        self._events.flush()


def _truncate(path: Path, last_step: int) -> None:
    """Keeps the complete lines up to `last_step`."""
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= last_step:
                kept.append(line + "\n")
        except json.JSONDecodeError:  # The half line of a killed process.
            continue
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept))
    temporary.replace(path)


class Progress:
    """Progress: step rate, images/s, the share of time spent waiting for data, and the remaining time.

    A progress bar in a terminal; elsewhere a plain line whenever figures are logged.
    """

    def __init__(self, *, steps: int, batch_size: int, show: bool):
        self._show = show
        self._steps = steps
        self._batch_size = batch_size
        self._bar = tqdm(total=steps, unit="step", disable=not (show and sys.stderr.isatty()), dynamic_ncols=True)
        self._window_steps = 0
        self._waited_s = 0.0

    def start(self, first_step: int, text: str) -> None:
        """Prints what starts, and starts the clock."""
        self.say(text)
        self._bar.update(first_step)
        self._window_start = time.perf_counter()

    def add_wait(self, seconds: float) -> None:
        self._waited_s += seconds

    def advance(self, steps: int = 1) -> None:
        self._window_steps += steps
        self._bar.update(steps)

    def rates(self) -> dict[str, float]:
        """The rates since the last call."""
        seconds = max(time.perf_counter() - self._window_start, 1e-9)
        rate = self._window_steps / seconds
        out = {
            "steps_per_s": rate,
            "images_per_s": rate * self._batch_size,
            "data_wait_share": self._waited_s / seconds,
        }
        self._window_start, self._window_steps, self._waited_s = time.perf_counter(), 0, 0.0
        return out

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the time inside, for instance of a validation, from the rates."""
        began = time.perf_counter()
        yield
        self._window_start += time.perf_counter() - began

    def show(self, step: int, figures: dict[str, float]) -> None:
        parts = [f"{name.split('/')[-1]} {value:.4g}" for name, value in figures.items() if name.startswith("train/")]
        speed = f"{figures['images_per_s']:.0f} images/s, waits {figures['data_wait_share']:.1%}"
        if not self._bar.disable:
            self._bar.set_postfix_str(f"{parts[0]}, {speed}")
            return
        left_min = (self._steps - step) / max(figures["steps_per_s"], 1e-9) / 60
        self.say(
            f"step {step}/{self._steps} | {', '.join(parts)} | {figures['steps_per_s']:.2f} steps/s, {speed}, "
            f"ETA {left_min:.1f} min"
        )

    def say(self, text: str) -> None:
        """Prints a line of its own, without breaking the progress bar."""
        if self._show:
            tqdm.write(text, file=sys.stderr)
            sys.stderr.flush()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.close()
