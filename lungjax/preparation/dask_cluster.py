"""Runs tasks on an existing Dask cluster, as `pool.run` does in local processes.

If a worker dies, Dask gives its task to another worker. Every worker must find source and output under the same path.
Needs Dask's scheduler (`pip install 'lungjax[dask]'`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lungjax.errors import InputError
from lungjax.preparation.pool import WorkerDied, limit_threads
from lungjax.version import VERSION

Task = TypeVar("Task")
Result = TypeVar("Result")

_CONNECT = "30s"


def run(
    function: Callable[[Task], Result], tasks: Iterable[Task], address: str, *, paths: Sequence[Path]
) -> Iterator[tuple[Task, Result]]:
    """Yields each task with its result, in the order in which they finish.

    Args:
      function: importable by name on the workers; running it twice on the same task must do no harm.
      tasks: picklable.
      address: of the scheduler, for instance `tcp://10.0.0.1:8786`.
      paths: paths that every worker must find.

    Raises:
      InputError: Dask is not installed; no scheduler answers; there is no worker; a worker has another version of
        lungjax or does not find one of the paths.
      WorkerDied: several workers died over the same task; all others are finished by then.
      Exception: whatever `function` raises, at once.
    """
    if importlib.util.find_spec("distributed") is None:
        raise InputError("Dask, which --dask needs, is not installed; run `pip install 'lungjax[dask]'`.")
    import distributed

    try:
        client = distributed.Client(address, timeout=_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"--dask {address}: no Dask scheduler answers there ({error}); check the address.") from error
    with client:
        workers: Any = client.run(_version_and_missing, [str(path) for path in paths])
        _check_workers(workers, address)
        client.run(_limit_threads)
        deaths: list[WorkerDied[Task]] = []
        waiting = {client.submit(function, task, pure=False): task for task in tasks}
        for future in distributed.as_completed(list(waiting), loop=client.loop):
            task = waiting.pop(future)
            try:
                result = future.result()
            except distributed.KilledWorker:
                deaths.append(WorkerDied(task))
                continue
            future.release()  # Frees the memory of the finished task on the cluster.
            yield task, result
    if deaths:
        raise deaths[0]


def _version_and_missing(paths: Sequence[str]) -> tuple[str, list[str]]:
    """Runs on a worker; returns its version of lungjax, and the paths that it does not find."""
    return VERSION, [path for path in paths if not Path(path).exists()]


def _limit_threads(dask_worker: Any) -> None:
    """Runs on a worker, before JAX does: it was given so many threads of its machine by whoever started it."""
    limit_threads(dask_worker.state.nthreads)


def _check_workers(workers: dict[str, tuple[str, list[str]]], address: str) -> None:
    if not workers:
        raise InputError(f"--dask {address}: the scheduler has no workers; start some.")
    for worker, (version, missing) in workers.items():
        if version != VERSION:
            raise InputError(f"--dask {address}: {worker} has lungjax {version}, not {VERSION}; install this version.")
        if missing:
            raise InputError(f"--dask {address}: {worker} does not find {missing[0]}; mount it under this path.")
