"""Makes worker processes end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading


def init_grain_worker(*_: int) -> None:
    """Grain calls this when a worker process starts; it passes the worker's number and the number of workers.

    Ctrl-C, Slurm and systemd send signals to both workers and parent. The worker ignores them, because the parent may
    need more batches before it stops, and then ends its workers itself.
    """
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, signal.SIG_IGN)
    end_with_parent()


def end_with_parent() -> None:
    """Ends this process once its parent has ended.

    Otherwise, workers of a parent that was killed by SIGKILL would wait for ever, for tasks or for space in their
    queue. PR_SET_PDEATHSIG is no alternative: it depends on the thread that started the worker, and Grain's threads end
    earlier than the worker.
    """
    threading.Thread(target=_exit_after_parent, daemon=True).start()


def _exit_after_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
