"""Tasks over local processes: results as they come, and an answer for a process that dies."""

from __future__ import annotations

import functools
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Generic, TypeVar

from lungjax.data.workers import end_with_parent

Task = TypeVar("Task")
Result = TypeVar("Result")


class WorkerDied(Exception, Generic[Task]):
    """A worker process died twice over one task: killed from outside, or by a crash in native code."""

    def __init__(self, task: Task):
        super().__init__(task)
        self.task = task


def run(function: Callable[[Task], Result], tasks: Iterable[Task], workers: int) -> Iterator[tuple[Task, Result]]:
    """Each task with its result, in the order they finish.

    Args:
      function: importable by name; it must not matter if it runs twice on a task.
      tasks: picklable.
      workers: how many processes; with 1 everything happens in this one.

    Raises:
      WorkerDied: a process died over a task, and again when the task was retried on its own.
      Exception: whatever `function` raises, at once.
    """
    if workers == 1:
        for task in tasks:
            yield task, function(task)
        return
    waiting = deque(tasks)
    while waiting:
        running: dict[Future[Result], Task] = {}
        with _pool(workers) as pool:
            try:
                while waiting or running:
                    while waiting and len(running) < 2 * workers:
                        future = pool.submit(function, waiting[0])  # May find the pool broken.
                        running[future] = waiting.popleft()
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        result = future.result()
                        yield running.pop(future), result
            except BrokenProcessPool:
                pass  # Any of those still running may be to blame.
            finally:
                pool.shutdown(cancel_futures=True)
        for task in running.values():
            yield task, _alone(function, task)


def apart(function: Callable[..., Result], *arguments: object) -> Result:
    """`function(*arguments)` in a process of its own: for native code that a file can crash, this process with it.

    The process is kept for the next call.

    Args:
      function: importable by name; arguments and result are picklable.

    Raises:
      WorkerDied: the process died.
      Exception: whatever `function` raises.
    """
    try:
        return _kept_apart().submit(function, *arguments).result()
    except BrokenProcessPool:
        _kept_apart.cache_clear()
        raise WorkerDied(arguments) from None


@functools.lru_cache(maxsize=1)
def _kept_apart() -> ProcessPoolExecutor:
    return _pool(1)


def _alone(function: Callable[[Task], Result], task: Task) -> Result:
    with _pool(1) as pool:
        try:
            return pool.submit(function, task).result()
        except BrokenProcessPool:
            raise WorkerDied(task) from None


def _pool(workers: int) -> ProcessPoolExecutor:
    # Not fork: the parent may have threads (JAX, ArrayRecord), and a forked child would inherit their locks.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_start)


def _start() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends the pool.
    end_with_parent()
