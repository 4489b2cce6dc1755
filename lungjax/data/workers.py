"""Worker processes that end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def outlive_signals_not_the_parent(*_: int) -> None:
    """For Grain to call as a worker process starts; it passes the worker's number and their count.

    Ctrl-C, Slurm and systemd signal workers and parent alike. The parent may still want batches before it stops, and
    then ends its workers itself.
    """
    for meant_for_parent in (signal.SIGINT, signal.SIGTERM):
        signal.signal(meant_for_parent, signal.SIG_IGN)
    end_with_parent()


def end_with_parent() -> None:
    """Without this, workers of a parent ended by SIGKILL wait for tasks, or for room in their queue, for ever.

    PR_SET_PDEATHSIG would not do: it goes by the thread that started the worker, and Grain's threads end before it.
    """
    threading.Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
