"""Every task by its name in `config.task`."""

from __future__ import annotations

from collections.abc import Callable

from lungjax.tasks import classify, diagnose, pretrain, segment, sift
from lungjax.tasks.task import Task

TASKS: dict[str, Callable[..., Task]] = {
    "pretrain": pretrain.make,
    "segment": segment.make,
    "classify": classify.make,
    "sift": sift.make,
    "diagnose": diagnose.make,
}
