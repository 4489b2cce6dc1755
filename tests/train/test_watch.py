"""What is logged of the steps between two logs."""

from __future__ import annotations

import math
from pathlib import Path

import jax.numpy as jnp
import pytest

from lungjax.train.watch import Window


def test_scores_of_a_window_are_those_of_all_its_pixels(tmp_path: Path):
    """As validation's are of all its batches: not a mean of scores, and never undefined where nothing is predicted."""
    logged: list[tuple[int, dict[str, float]]] = []
    window = Window(tmp_path, lambda step, figures: logged.append((step, figures)))
    steps = [(1.0, [0, 0, 8, 92]), (2.0, [6, 2, 0, 92]), (6.0, [0, 0, 0, 100])]
    for number, (loss, counts) in enumerate(steps, start=1):
        figures = {"loss": jnp.float32(loss), "grad_norm": jnp.float32(math.inf if number == 1 else number)}
        figures["learning_rate"] = jnp.float32(number)
        if number == 2:
            figures["effective_rank"] = jnp.float32(7)
        window.add(number, {**figures, "counts": jnp.array(counts, jnp.int32)}, [{}])
    window.end(3, {"steps_per_s": 9.0})
    assert logged == []  # Nothing waits for the last step.
    window.add(4, {"loss": jnp.float32(1.0), "counts": jnp.array([0, 0, 3, 7], jnp.int32)}, [{}])
    window.end(4, {})
    window.flush()
    (first, found), (last, after) = logged
    assert (first, last) == (3, 4)
    assert found == pytest.approx(
        {
            "train/loss": 3.0,
            "train/grad_norm": 2.5,  # Of the steps where it is finite.
            "train/learning_rate": 3.0,
            "train/effective_rank": 7.0,  # Of the steps that have one.
            "train/dice": 12 / (12 + 2 + 8),
            "train/iou": 6 / 16,
            "train/precision": 6 / 8,
            "train/recall": 6 / 14,
            "train/accuracy": 290 / 300,
            "steps_per_s": 9.0,
        }
    )
    # A new window; of the steps before nothing is left.
    assert (after["train/precision"], after["train/recall"], after["train/dice"]) == (0, 0, 0)
