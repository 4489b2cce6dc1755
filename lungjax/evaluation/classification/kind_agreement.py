"""How often two namings of the same nodules by kind agree: a table, the share, Cohen's kappa, each kind's share.

Source: Cohen, "A coefficient of agreement for nominal scales", Educational and Psychological Measurement 20 (1960).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lungjax.evaluation.stats import bootstrap, figures


def agreement_figures(
    reference: Sequence[str], predicted: Sequence[str], kinds: Sequence[str], patients: Sequence[str]
) -> dict[str, Any]:
    """Figures with intervals by patient.

    Args:
      reference, predicted: (n,) names among `kinds`, at least one.
      kinds: every name.
      patients: (n,) patient ids.

    Returns:
      `nodules`; `table`, by the reference's kind how many were predicted to be of each kind; `agreement`, `kappa` and,
      by kind of the reference, `sensitivity`: `value`, `low` and `high` each, None where undefined.
    """
    place = {kind: number for number, kind in enumerate(kinds)}
    cells = np.zeros((len(reference), len(kinds), len(kinds)))
    for row, (true, guess) in enumerate(zip(reference, predicted, strict=True)):
        cells[row, place[true], place[guess]] = 1
    table = cells.sum(axis=0)
    low, high = bootstrap.interval(bootstrap.patient_sums(cells, patients), _figures)
    each = [
        {name: figures.finite_or_none(float(x)) for name, x in zip(("value", "low", "high"), three, strict=True)}
        for three in zip(_figures(table[None])[0], low, high, strict=True)
    ]
    return {
        "nodules": len(reference),
        "table": {true: {guess: int(table[place[true], place[guess]]) for guess in kinds} for true in kinds},
        "agreement": each[0],
        "kappa": each[1],
        "sensitivity": dict(zip(kinds, each[2:], strict=True)),
    }


def _figures(tables: np.ndarray) -> np.ndarray:
    """(m, kinds, kinds) -> (m, 2 + kinds): agreement, kappa, sensitivities."""
    number = tables.sum(axis=(1, 2))
    agreed = np.diagonal(tables, axis1=1, axis2=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = agreed.sum(axis=1) / number
        chance = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1) / number**2
        kappa = (share - chance) / (1 - chance)
        return np.column_stack([share, kappa, agreed / tables.sum(axis=2)])
