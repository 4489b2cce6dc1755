"""What the processes that decode batches do about signals, and about the end of the run that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def live_and_die_with_parent(*_: int) -> None:
    """For Grain to call as a worker process starts; it passes the worker's number and their count.

    Ctrl-C, Slurm and systemd signal workers and parent alike. The parent may still want batches before it stops, and
    then ends its workers itself.
    """
    for meant_for_parent in (signal.SIGINT, signal.SIGTERM):
        signal.signal(meant_for_parent, signal.SIG_IGN)
    threading.Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    """Without this, workers of a parent ended by SIGKILL wait for room in their queue for ever.

    PR_SET_PDEATHSIG would not do: it goes by the thread that started the worker, and Grain's threads end before it.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
