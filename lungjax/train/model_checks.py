"""A model folder may come from a stranger: what it says of its network is checked before anything is made of it.

Weights are data, in a format that runs nothing. What is left to fear is a description that makes lungjax ask for
memory without bound, or fail somewhere later: so every number has a limit, and the arrays must be those of the network
that the configuration describes. That is found by tracing, which allocates none of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, get_args

import flax.traverse_util
import jax
import numpy as np
from jax.sharding import Mesh

from lungjax.ct.scan import Intensity
from lungjax.data import splits
from lungjax.errors import InputError
from lungjax.tasks import kinds
from lungjax.tasks.kinds import TASKS
from lungjax.tasks.task import Config
from lungjax.train import config_checks

Shapes = Mapping[str, tuple[int, ...]]
"""Of arrays, by names such as `params/encoder/stem/kernel`."""

_MOST_PX = 4096
"""Side of an image; CT slices have 512, a few 2048."""
_MOST_CHANNELS = 16384
_MOST = {"patch.side_px": _MOST_PX, "data.crop_px": _MOST_PX, "data.nodules": 1024, "data.context": 64}
_LONGEST = 16
"""Values in a list of a configuration."""
_MARKING_WEIGHTS = 5
"""Of `lungjax.train.calibrate.slice_features`, and an offset."""
_USED = {
    "segment": ("augment.window_hu", "augment.shift"),
    "pretrain": ("augment.window_hu",),
    "sift": ("patch.window_hu", "patch.side_px", "patch.pixel_mm"),
    "classify": ("patch.window_hu", "patch.side_px", "patch.pixel_mm"),
    "diagnose": ("patch.window_hu", "patch.side_px", "patch.pixel_mm", "data.nodules"),
}
"""Keys that prediction and evaluation need, beside those of the network."""
_WHOLE = {"data.crop_px", "data.nodules", "data.batch_size", "data.context", "patch.side_px"}
_NUMBERS = {"augment.shift", "patch.pixel_mm", "data.train_share", "data.context_mm"}
_WINDOWS = {"augment.window_hu", "patch.window_hu"}


def check_description(description: Any) -> None:
    """Raises ValueError where the content of a `config.json` cannot be that of an exported network; the arrays are
    looked at by `check_network`."""
    for name in ("config", "origin", "figures"):
        _demand(isinstance(description[name], dict), name, "is no object")
    _demand(_is_whole(description["step"]), "step", "is no step")
    _demand(description["intensity"] in (*get_args(Intensity), "mixed"), "intensity", "is unknown")
    check_patients(description["patients"])
    seen = description.get("seen", {})
    _demand(isinstance(seen, dict), "seen", "is no object")
    for name in ("slice_mm", "pixel_mm"):
        ends = seen.get(name)
        _demand(ends is None or (_are_numbers(ends) and len(ends) == 2), f"seen.{name}", "is not two numbers")
    side_px = seen.get("side_px")
    _demand(side_px is None or (_is_whole(side_px) and 0 < side_px <= _MOST_PX), "seen.side_px", "is no size")
    check_calibration(description.get("calibration", {}))
    check_operating_points(description.get("operating_points", {}))


def check_patients(patients: Any) -> None:
    """Raises ValueError where it cannot be the split of each patient."""
    _demand(isinstance(patients, dict), "patients", "is no object")
    known = get_args(splits.Split)
    _demand(all(split in known for split in patients.values()), "patients", "has another split")


def check_calibration(calibration: Any) -> None:
    """Raises ValueError where it cannot be a calibration, as `lungjax.train.trained.Trained` has one."""
    _demand(isinstance(calibration, dict), "calibration", "is no object")
    for name, value in calibration.items():
        _demand(_is_number(value) or _are_numbers(value), f"calibration.{name}", "is no finite number")
    for name in calibration.keys() & {"slope", "offset", "prevalence", "prevalence_of"}:
        _demand(_is_number(calibration[name]), f"calibration.{name}", "is no number")
    for name, of in (("share", "predicted"), ("outline", "outline_predicted")):
        if name in calibration:
            places, values = calibration.get(of), calibration[name]
            alike = _are_numbers(places) and _are_numbers(values) and len(places) == len(values) > 1
            _demand(alike and _ascends(places), f"calibration.{name}", f"does not fit calibration.{of}")
    if "marking_weights" in calibration:
        weights = calibration["marking_weights"]
        fits = _are_numbers(weights) and len(weights) == _MARKING_WEIGHTS and "outline" in calibration
        _demand(fits, "calibration.marking_weights", "does not fit calibration.outline, or has too few numbers")


def check_operating_points(points: Any) -> None:
    """Raises ValueError where they cannot be thresholds, as `lungjax.train.trained.Trained` has them."""
    _demand(isinstance(points, dict), "operating_points", "is no object")
    if not points:
        return
    rates, thresholds = points.get("false_positives_a_scan"), points.get("threshold")
    alike = _are_numbers(rates) and _are_numbers(thresholds) and len(rates) == len(thresholds) > 0
    _demand(alike and _ascends(rates) and rates[0] > 0, "operating_points", "has no ascending rates and thresholds")
    _demand(_is_number(points.get("default")), "operating_points.default", "is no number")
    _demand(isinstance(points.get("fitted_on"), str), "operating_points.fitted_on", "is no text")
    odds_factor = points.get("odds_factor", 1.0)
    _demand(_is_number(odds_factor) and odds_factor > 0, "operating_points.odds_factor", "is no number above 0")


def check_network(config: Config, shapes: Shapes | None) -> None:
    """Checks that a configuration describes a network that lungjax makes, and that these are its arrays.

    Args:
      config: of the network.
      shapes: of its arrays; None where they are not at hand, as of a network exported to run without lungjax.

    Raises:
      ValueError: with what is wrong.
    """
    _demand(config.get("task") in TASKS, "config.task", f"is none of {', '.join(TASKS)}")
    values = dict(config_checks.leaves(config.to_dict()))
    for name in ("init_from", "compute_dtype", "data.crop_px", "data.crop_at", "data.path", *_USED[config.task]):
        _demand(name in values, f"config.{name}", "is missing")
    for name, value in values.items():
        numbers = value if isinstance(value, list | tuple) else [value]
        _demand(len(numbers) <= _LONGEST, f"config.{name}", f"has {len(numbers)} values, more than any network's")
        most = _MOST.get(name, _MOST_CHANNELS if name.startswith("model.") else math.inf)
        for number in numbers:
            _demand(number is None or isinstance(number, int | float | str), f"config.{name}", "is no plain value")
            too_large = isinstance(number, int | float) and number > most
            _demand(not too_large, f"config.{name}", f"is {number}, and at most {most} is possible")
    for name in values.keys() & _WHOLE:
        _demand(_is_whole(values[name]), f"config.{name}", "is no whole number")
    for name in values.keys() & _NUMBERS:
        _demand(_is_number(values[name]), f"config.{name}", "is no number")
    for name in values.keys() & _WINDOWS:
        _demand(isinstance(values[name], list | tuple), f"config.{name}", "is not two numbers")
        _demand(_are_numbers([*values[name]]), f"config.{name}", "is not two numbers")
    try:
        config_checks.check(config)
        expected = _shapes(config)
    except InputError as error:
        raise ValueError(str(error).rstrip(".")) from error
    except Exception as error:  # Flax and JAX raise whatever a foreign configuration happens to provoke.
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"config describes no network: {why}") from error
    if shapes is None:
        return
    for name in sorted(expected.keys() | shapes.keys()):
        if expected.get(name) != shapes.get(name):
            has, wants = (of.get(name, "missing") for of in (shapes, expected))
            raise ValueError(f"{name} is {has}, but by config it is {wants}")


def _shapes(config: Config) -> Shapes:
    """Of the arrays of a configuration's network."""
    params, model_state = kinds.trace_init(config, Mesh(np.array(jax.devices()[:1]), ("data",)))
    flat = flax.traverse_util.flatten_dict({"params": params, "model_state": model_state}, sep="/")
    return {name: tuple(array.shape) for name, array in flat.items()}  # pyright: ignore[reportAttributeAccessIssue]


def _demand(condition: bool, name: str, problem: str) -> None:
    if not condition:
        raise ValueError(f"{name} {problem}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(map(_is_number, values))


def _ascends(values: list[float]) -> bool:
    return values == sorted(values)
