"""What a configuration may hold: checked before data are read or made."""

from __future__ import annotations

import ast
import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lungjax import platforms
from lungjax.data import crop, index_columns
from lungjax.data.context import Context
from lungjax.errors import InputError
from lungjax.tasks.task import Config
from lungjax.train.mesh import PARAMETERS

CONTEXT_TASKS = ("pretrain", "segment")
"""Whose networks can be shown neighbouring slices, `config.data.context`."""
PLACEMENTS = ("host", "device")
"""Of the pixels of the train slices."""
_LEAST = {
    "steps": 1,
    "log_every": 1,
    "eval_every": 1,
    "checkpoint_every": 1,
    "steps_per_dispatch": 1,
    "accumulate": 1,
    "keep_checkpoints": 1,
    "data.batch_size": 2,  # With one slice, SimCLR would have no negatives.
    "data.nodules": 1,
    "patch.side_px": 1,
}
"""Of whole numbers; the sizes of a model are at least 1, any other number at least 0."""
_ABOVE_0 = {"optimizer.learning_rate", "optimizer.clip_norm", "temperature", "patch.pixel_mm", "data.train_share"}
_AT_MOST_1 = {"data.train_share", "optimizer.warmup"}
_BELOW_1 = {"average_decay", "model.dropout"}
_WORDS = {"slices": index_columns.SELECTIONS, "crop_at": crop.PLACES, "placement": PLACEMENTS, "parameters": PARAMETERS}
"""Of `config.data` and of its parts, and of `config.mesh`."""
_LARGEST_SEED = 2**32 - 1
"""Of Grain's."""
_OVERRIDE = re.compile(r"--?config\.([\w.]+)(?:=(.*))?", re.DOTALL)


def check(config: Config) -> None:
    """Raises InputError where a number of a configuration is out of range, or none at all."""
    for name, value in leaves(config.to_dict()):
        words = _WORDS.get(name.split(".")[-1])
        if words and name.startswith(("data.", "mesh.")) and value not in words:
            raise InputError(f"config.{name} is {value!r}; use one of {', '.join(words)}.")
        if name.endswith("window_hu") and (len(value) != 2 or not value[1] > 0):
            raise InputError(f"config.{name} is {value}; it must be two numbers: a centre, and a width above 0.")
        for number in value if isinstance(value, tuple | list) else (value,):
            if isinstance(number, int | float) and not isinstance(number, bool):
                _check_number(name, number)
    _check_context(config)
    last_seed = config.seed + max(config.get("replicas", 1), 1) - 1
    if last_seed > _LARGEST_SEED:
        which = "config.seed" if last_seed == config.seed else "config.seed of the last replica"
        raise InputError(f"{which} is {last_seed}; it must be at most {_LARGEST_SEED}.")


def check_replicas(config: Config, replicas: int, *, processes: int) -> None:
    """Raises InputError where so many runs of a configuration cannot be trained together."""
    if replicas > 1 and processes > 1:
        raise InputError(
            f"{replicas} replicas are to be trained together by {processes} processes; replicas share one process: "
            "start it without --coordinator, or set config.replicas=1."
        )
    if replicas > 1 and "mesh" in config and config.mesh.parameters == "sharded":
        raise InputError(
            f"{replicas} replicas are to be trained together, but config.mesh.parameters is 'sharded', for networks "
            "that fit no single device; set it to 'replicated', or config.replicas=1."
        )


def _check_context(config: Config) -> None:
    shown = Context.of(config)
    if shown.slices and config.task not in CONTEXT_TASKS:
        raise InputError(
            f"config.data.context is {shown.slices}, but a network of the task {config.task} is shown no neighbouring "
            f"slices; set it to 0. Tasks with context: {', '.join(CONTEXT_TASKS)}."
        )
    if shown.step_mm and not shown.slices:
        raise InputError(
            f"config.data.context_mm is {shown.step_mm:g}, but config.data.context is 0, so no neighbouring slice is "
            "shown; set config.data.context to how many are to be shown on either side, or config.data.context_mm=0."
        )


def _check_number(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise InputError(f"config.{name} is {value}; it must be a finite number.")
    if name.endswith("window_hu"):  # Its centre may be negative.
        return
    least = _LEAST.get(name, 1 if name.startswith("model.") and isinstance(value, int) else 0)
    if value < least:
        raise InputError(f"config.{name} is {value}; it must be at least {least}.")
    if name in _ABOVE_0 and value == 0:
        raise InputError(f"config.{name} is {value}; it must be above 0.")
    if (name in _AT_MOST_1 and value > 1) or (name in _BELOW_1 and value >= 1):
        raise InputError(f"config.{name} is {value}; it must be {'at most' if name in _AT_MOST_1 else 'below'} 1.")


def check_memory(image_bytes: int, config: Config, *, processes: int = 1, replicas: int = 1) -> None:
    """Raises InputError where the images of a batch alone take more memory than the computer has.

    Args:
      image_bytes: of one image with its marks.
      config: has `data.batch_size`.
      processes: that share a batch.
      replicas: runs with a batch each.
    """
    needed, memory = image_bytes * config.data.batch_size * replicas // processes, platforms.memory_bytes()
    if memory is not None and needed > memory:
        crop = "" if "crop_px" not in config.data else " or config.data.crop_px"
        batch = f"a batch of {config.data.batch_size}" + (f" for each of {replicas} replicas" if replicas > 1 else "")
        raise InputError(
            f"config.data.batch_size: the images of {batch} take {needed / 2**30:,.1f} "
            f"GiB, and this computer has {memory / 2**30:,.1f} GiB of memory; lower config.data.batch_size{crop}."
        )


def check_overrides(argv: Sequence[str], default: Config) -> None:
    """Checks the types of `--config.KEY=VALUE` more strictly than ml_collections does.

    That takes 64 or (1.5, 2) for a tuple of whole numbers, and turns None into the text 'None'.

    Args:
      argv: the command's arguments.
      default: the configuration without them.

    Raises:
      InputError: there is no such key, with the most similar one; or a value has the wrong type.
    """
    known = dict(leaves(default.to_dict()))
    for name, text in _overrides(argv):
        if name not in known:
            if name in _groups(known):
                raise InputError(
                    f"--config.{name} holds several values; set one of them, as --config.{name}.KEY=VALUE."
                )
            similar = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
            hint = f"did you mean config.{similar[0]}?" if similar else "see the configuration's file for its keys."
            raise InputError(f"--config.{name}: there is no such key; {hint}")
        if text is not None:
            _check_type(name, text, known[name])


def _overrides(argv: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Of each `--config.KEY=VALUE`, or `--config.KEY VALUE`, the key and the value; None where there is none."""
    for place, argument in enumerate(argv):
        if argument == "--":
            return
        if match := _OVERRIDE.fullmatch(argument):
            name, text = match.groups()
            yield name, argv[place + 1] if text is None and place + 1 < len(argv) else text


def _check_type(name: str, text: str, default: Any) -> None:
    if isinstance(default, str):
        if text == "None":
            raise InputError(f"--config.{name}=None: the value is text; leave it empty, --config.{name}=, for nothing.")
        return
    if isinstance(default, int | float) and not isinstance(default, bool):
        try:
            type(default)(text)
        except ValueError:
            what = "a whole number" if isinstance(default, int) else "a number"
            raise InputError(f"--config.{name}={text}: it must be {what}, as {default}.") from None
    if not isinstance(default, tuple):
        return
    kinds = {type(value) for value in default}
    what = "whole numbers" if kinds == {int} else "numbers"
    try:
        values = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        values = None
    allowed = {int} if kinds == {int} else {int, float}
    if not isinstance(values, tuple | list) or not values or not {type(value) for value in values} <= allowed:
        raise InputError(f"--config.{name}={text}: it must be {what} in brackets, as in {default}.")


def _groups(known: Mapping[str, Any]) -> set[str]:
    return {name[:place] for name in known for place in range(len(name)) if name[place] == "."}


def leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (`a.b.c`, value) for each value in nested dicts."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
