"""What every room may raise."""

from __future__ import annotations


class Fault(Exception):
    """Why one scan cannot be used. It quarantines that scan and stops no other.

    Attributes:
      name: stable identifier in snake case, for instance `incomplete_series`; see `lungjax.ct.faults`.
      message: one sentence: what, where, what to do.
    """

    def __init__(self, name: str, message: str):
        super().__init__(f"{name}: {message}")
        self.name = name
        self.message = message

    def __reduce__(self):  # Exceptions cross process borders by pickle, which knows only `args`.
        return Fault, (self.name, self.message)


class InputError(Exception):
    """A user's mistake: one clear sentence, shown without a traceback, exit code 2."""
