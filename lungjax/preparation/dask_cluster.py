"""Tasks over a Dask cluster that is there already, as `workers.run` does over local processes.

Dask moves a task of a worker that died to another one. Source and output must lie where every worker finds them under
the same path. Needs Dask's scheduler (`pip install 'lungjax[dask]'`).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import lungjax
from lungjax.errors import InputError
from lungjax.preparation.pool import WorkerDied

Task = TypeVar("Task")
Result = TypeVar("Result")

_CONNECT = "30s"


def run(
    function: Callable[[Task], Result], tasks: Iterable[Task], address: str, *, paths: Sequence[Path]
) -> Iterator[tuple[Task, Result]]:
    """Each task with its result, in the order they finish.

    Args:
      function: importable by name on the workers; it must not matter if it runs twice on a task.
      tasks: picklable.
      address: of the scheduler, for instance `tcp://10.0.0.1:8786`.
      paths: what every worker must find.

    Raises:
      InputError: Dask is not installed; no scheduler answers; there is no worker; a worker has another lungjax, or
        does not find one of the paths.
      WorkerDied: several workers died over the same task.
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
        answers: Any = client.run(_sees, [str(path) for path in paths])
        _check_workers(answers, address)
        waiting = {client.submit(function, task, pure=False): task for task in tasks}
        for future in distributed.as_completed(list(waiting), loop=client.loop):
            task = waiting.pop(future)
            try:
                result = future.result()
            except distributed.KilledWorker:
                raise WorkerDied(task) from None
            future.release()  # Nothing of a finished task stays on the cluster.
            yield task, result


def _sees(paths: Sequence[str]) -> tuple[str, list[str]]:
    """On a worker: its version, and which of the paths it does not find."""
    return lungjax.__version__, [path for path in paths if not Path(path).exists()]


def _check_workers(answers: dict[str, tuple[str, list[str]]], address: str) -> None:
    if not answers:
        raise InputError(f"--dask {address}: the scheduler has no workers; start some.")
    for worker, (version, missing) in answers.items():
        if version != lungjax.__version__:
            raise InputError(
                f"--dask {address}: {worker} has lungjax {version}, not {lungjax.__version__}; install it."
            )
        if missing:
            raise InputError(f"--dask {address}: {worker} does not find {missing[0]}; mount it there under this path.")
