"""From which score on a candidate is a nodule: fitted on validation scans for so many false ones a scan, or given."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from lungjax.errors import InputError
from lungjax.train.trained import Trained

UNFITTED = 0.5
"""The threshold of a network that has none fitted."""


@dataclasses.dataclass(frozen=True)
class OperatingPoint:
    """The threshold of a prediction.

    Attributes:
      threshold: candidates with at least this score are nodules.
      false_positives_a_scan: for how many it was fitted; None where it was asked for itself, or was not fitted.
      source: one sentence, where it comes from.
    """

    threshold: float
    false_positives_a_scan: float | None
    source: str


def choose(scorer: Trained, *, false_positives: float | None, threshold: float | None) -> OperatingPoint:
    """The operating point to use.

    Args:
      scorer: the network whose scores are compared with the threshold: the candidate classifier, or the detector where
        there is none. Its `operating_points` tell thresholds by false positives a scan.
      false_positives: a scan, on average, as many as are accepted; None for the default of the network.
      threshold: used as it is; not together with `false_positives`.

    Raises:
      InputError: both are given, one is out of its range, or the network has no thresholds fitted.
    """
    if threshold is not None:
        if false_positives is not None:
            raise InputError("both a threshold and a number of false positives are given; give one of them.")
        if not 0 <= threshold <= 1:
            raise InputError(f"the threshold is {threshold:g}; it must be from 0 to 1.")
        return OperatingPoint(float(threshold), None, "The threshold was given.")
    points = scorer.operating_points
    if not points:
        if false_positives is not None:
            raise InputError(
                f"{scorer.path} has no threshold fitted for {false_positives:g} false positives a scan; fit it by "
                "`lungjax evaluate --whole-scans --split val --fit-operating-point`, or give a threshold."
            )
        return OperatingPoint(UNFITTED, None, "No threshold was fitted for this network on validation scans.")
    rate = points["default"] if false_positives is None else false_positives
    return OperatingPoint(threshold_at(points, rate), float(rate), f"Fitted on {points['fitted_on']}.")


def in_whole_scans(probability: np.ndarray, points: Mapping[str, Any]) -> np.ndarray:
    """Candidates' probabilities of being nodules, as they are in whole scans.

    A classifier that was calibrated on crops around nodules knows candidates of which about every second one is a
    nodule; in a scan it is one of many. Its odds are multiplied by `odds_factor`, by Bayes' rule, where `points` have
    it.

    Args:
      probability: float64, of any shape.
      points: `operating_points` of the classifier.
    """
    odds_factor = float(points.get("odds_factor", 1.0))
    return odds_factor * probability / (odds_factor * probability + (1 - probability))


def threshold_at(points: Mapping[str, Any], rate: float) -> float:
    """The threshold for `rate` false positives a scan, between the fitted ones interpolated along log(rate).

    Raises:
      InputError: the rate lies outside the fitted ones.
    """
    rates, thresholds = np.array(points["false_positives_a_scan"]), np.array(points["threshold"])
    if not rates[0] <= rate <= rates[-1]:
        raise InputError(
            f"{rate:g} false positives a scan: thresholds were fitted for {rates[0]:g} to {rates[-1]:g}; ask for as "
            "many, or give a threshold."
        )
    return float(np.interp(np.log(rate), np.log(rates), thresholds))
