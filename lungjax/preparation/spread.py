"""Spreads scans over local processes, or over the workers of a Dask scheduler: for `prepare` and for `predict`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lungjax.errors import InputError
from lungjax.preparation import dask_cluster, pool

Result = TypeVar("Result")


def run(
    function: Callable[[Any], Result],
    tasks: Sequence[Any],
    *,
    workers: int,
    dask: str | None = None,
    paths: Sequence[Path] = (),
) -> Iterator[tuple[Any, Result]]:
    """Yields each task with its result, in the order in which they finish.

    Args:
      function: importable by name; running it twice on the same task must do no harm.
      tasks: picklable; each has a `where` or a `path`.
      workers: the number of processes; with 1, or for a single task, everything runs in this process.
      dask: the address of a Dask scheduler whose workers do it instead.
      paths: paths that every Dask worker must find.

    Raises:
      InputError: no use can be made of the scheduler; or a worker died twice on a task, and all others are finished.
      Exception: whatever `function` raises, at once.
    """
    try:
        if dask is None:
            yield from pool.run(function, tasks, min(workers, max(len(tasks), 1)))
        else:
            yield from dask_cluster.run(function, tasks, dask, paths=paths)
    except pool.WorkerDied as died:
        where = getattr(died.task, "where", None) or died.task.path
        problem, help = f"a worker process died twice on {where}", "fewer --workers"
        if dask is not None:
            problem, help = f"several Dask workers died on {where}", "more memory per worker"
        raise InputError(f"{problem}, perhaps out of memory; run again with {help}: finished scans are kept.") from died
