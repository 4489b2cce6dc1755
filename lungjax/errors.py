"""Exceptions that every package of lungjax may raise, and how their sentences count."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

MACHINE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
"""Errors of the machine, such as a full or read-only disk, which need no traceback."""


def counted(number: int, noun: str) -> str:
    """`1 scan`, `1,018 scans`."""
    return f"{number:,} {noun}{'s' if number != 1 else ''}"


_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def plain(text: str) -> str:
    """A text in one line: control characters and ends of lines are spelt out, as Python does, `\\n`.

    Sentences quote names from files of others, which could otherwise add lines of their own, or command a terminal.
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class Fault(Exception):
    """The reason why one scan cannot be used. That scan is quarantined; all others go on.

    Attributes:
      name: stable identifier in snake case, for instance `incomplete_series`; see `lungjax.ct.faults`.
      message: one sentence: what, where, what to do.
    """

    def __init__(self, name: str, message: str):
        message = plain(message)
        super().__init__(f"{name}: {message}")
        self.name = name
        self.message = message

    def __reduce__(self):  # Exceptions cross process borders by pickle, which knows only `args`.
        return Fault, (self.name, self.message)


class InputError(Exception):
    """A user's mistake: one clear sentence, shown without a traceback, and perhaps lines that list something.

    Args:
      sentence: what, where, what to do.
      lines: below it.
    """

    exit_code = 2

    def __init__(self, sentence: str, *lines: str):
        super().__init__(sentence, *lines)

    def __str__(self) -> str:
        return "\n".join(map(plain, self.args))


class NothingDone(InputError):
    """Every scan was refused or quarantined, so that nothing is done; the sentence says why."""

    exit_code = 1


@contextlib.contextmanager
def told_once() -> Iterator[None]:
    """Until the block ends, errors of other threads are not printed: see `tell_once`."""
    undo = tell_once()
    try:
        yield
    finally:
        undo()


def tell_once() -> Callable[[], None]:
    """Silences what other threads print of their errors: an error in the background, as of a checkpoint that finds the
    disk full, is told by the next save, and TensorStore, Orbax and asyncio print it several times, with tracebacks.

    Returns:
      What undoes it.
    """

    def on_main_thread(hook: Callable[..., Any]) -> Callable[..., None]:
        def on_error(*error: Any) -> None:
            if threading.current_thread() is threading.main_thread():
                hook(*error)

        return on_error

    ignore_closed_loops()
    hooks = sys.excepthook, sys.unraisablehook, threading.excepthook
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    sys.excepthook, sys.unraisablehook = on_main_thread(hooks[0]), on_main_thread(hooks[1])
    threading.excepthook = lambda _: None
    for logger in loggers:
        logger.addFilter(_has_no_traceback)

    def undo() -> None:
        sys.excepthook, sys.unraisablehook, threading.excepthook = hooks
        for logger in loggers:
            logger.removeFilter(_has_no_traceback)

    return undo


@functools.cache
def ignore_closed_loops() -> None:
    """Silences, until the process ends, what TensorStore says of an event loop that is closed.

    Orbax closes its loop as soon as one file cannot be written. TensorStore, which still writes others, tells that loop
    of each from a thread of its own, some time later.
    """
    before = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not (isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == "Event loop is closed"):
            before(unraisable)

    sys.unraisablehook = hook


def _has_no_traceback(record: logging.LogRecord) -> bool:
    return not record.exc_info
