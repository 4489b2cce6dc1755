"""Runs tasks in local processes, yields results as they finish, and handles processes that die."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Generic, TypeVar

from lungjax import platforms
from lungjax.data.workers import end_with_parent

Task = TypeVar("Task")
Result = TypeVar("Result")


_XLA_THREADS = "NPROC"
"""XLA's CPU client takes its number of threads from it (`DefaultThreadPoolSize` in xla/pjrt/utils.cc)."""


class WorkerDied(Exception, Generic[Task]):
    """A worker process died twice on one task: killed from outside, or by a crash in native code."""

    def __init__(self, task: Task):
        super().__init__(task)
        self.task = task


def run(function: Callable[[Task], Result], tasks: Iterable[Task], workers: int) -> Iterator[tuple[Task, Result]]:
    """Yields each task with its result, in the order in which they finish.

    Args:
      function: importable by name; running it twice on the same task must do no harm.
      tasks: picklable.
      workers: the number of processes; with 1 everything runs in this process.

    Each process has its share of the cores for the threads of its libraries.

    Raises:
      WorkerDied: a process died on a task, and again when the task was retried alone; all others are finished by then.
      Exception: whatever `function` raises, at once.
    """
    if workers == 1:
        for task in tasks:
            yield task, function(task)
        return
    waiting = deque(tasks)
    deaths: list[WorkerDied[Task]] = []
    while waiting:
        running: dict[Future[Result], Task] = {}
        with _pool(workers) as pool:
            try:
                while waiting or running:
                    while waiting and len(running) < 2 * workers:
                        future = pool.submit(function, waiting[0])  # Raises if the pool is broken.
                        running[future] = waiting.popleft()
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        result = future.result()
                        yield running.pop(future), result
            except BrokenProcessPool:
                pass  # Any of the running tasks may be the cause.
            finally:
                pool.shutdown(cancel_futures=True)
        suspects = deque(running.values())
        while suspects:
            with _pool(1) as pool:
                try:
                    while suspects:
                        result = pool.submit(function, suspects[0]).result()
                        yield suspects.popleft(), result
                except BrokenProcessPool:
                    deaths.append(WorkerDied(suspects.popleft()))
    if deaths:
        raise deaths[0]


def run_isolated(function: Callable[..., Result], *arguments: object) -> Result:
    """Calls `function(*arguments)` in another process, for native code that a damaged file can crash.

    The process is kept for the next call.

    Args:
      function: importable by name; arguments and result are picklable.

    Raises:
      WorkerDied: the process died.
      Exception: whatever `function` raises.
    """
    try:
        return _isolated_pool().submit(function, *arguments).result()
    except BrokenProcessPool:
        _isolated_pool.cache_clear()
        raise WorkerDied(arguments) from None


@functools.lru_cache(maxsize=1)
def _isolated_pool() -> ProcessPoolExecutor:
    return _pool(1)


def _pool(workers: int) -> ProcessPoolExecutor:
    # No fork: the parent may have threads (JAX, ArrayRecord), and a forked child would inherit their locks.
    context = multiprocessing.get_context("spawn")
    threads = max(platforms.core_count() // workers, 1)
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_init_worker, initargs=(threads,))


def _init_worker(threads: int) -> None:
    limit_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C also reaches the parent, which ends the pool.
    end_with_parent()


def limit_threads(threads: int) -> None:
    """Has NumPy's BLAS and XLA start so many threads in this process; to be called before either starts."""
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", _XLA_THREADS), str(threads))
