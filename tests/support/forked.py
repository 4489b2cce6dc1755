"""Commands in processes that start at once: a server has imported everything, and forks one for each."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import verbs

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["forked", "lungjax.preparation.run", "lungjax.prediction.run", "lungjax.train.loop"])


def _run(arguments: list[str], said: str) -> None:
    os.setsid()  # With all that it starts.
    with open(said, "w") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
        code = verbs.run(arguments)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


@contextlib.contextmanager
def started(arguments: list[str], said: Path) -> Iterator[ForkServerProcess]:
    """Starts a command as `verbs.run` takes it, in a session of its own; it is killed at the end.

    Args:
      arguments: the verb and its arguments.
      said: the file for its output.
    """
    process = _CONTEXT.Process(target=_run, args=(arguments, str(said)))
    process.start()
    try:
        yield process
    finally:
        kill(process)


def kill(process: ForkServerProcess) -> bool:
    """Kills a command with all that it started; whether it was still at work."""
    assert process.pid is not None
    at_work = process.is_alive()
    for send in (os.killpg, os.kill):  # It may not lead its group yet.
        with contextlib.suppress(ProcessLookupError):
            send(process.pid, signal.SIGKILL)
    process.join()
    return at_work and process.exitcode == -signal.SIGKILL
