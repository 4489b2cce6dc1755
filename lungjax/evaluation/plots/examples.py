"""Sheets of examples: a network's input, its prediction, and the readers' marks and ratings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy.special

from lungjax.evaluation.plots import gallery, training_plots

Arrays = Mapping[str, np.ndarray]


def draw_examples(
    task: str, batch: Arrays, predicted: Arrays, titles: Sequence[str], path: Path, *, readers: int
) -> None:
    """Draws a sheet of examples for a task.

    Args:
      task: `config.task`.
      batch: as `lungjax.data.loader.Batch`, with `spacing_mm`, the distance between the pixels of a row.
      predicted: the task's predictions for the batch by name, see the task's `make`.
      titles: one for each example.
      path: the PNG; its folder is made if it does not exist.
      readers: the number of readers of each scan.
    """
    if task == "segment":
        training_plots.draw_slices(
            predicted["image"],
            batch["readers"],
            scipy.special.expit(predicted["logit"]),
            list(titles),
            path,
            spacing_mm=batch["spacing_mm"].tolist(),
            slots=readers,
        )
    elif task == "pretrain":
        training_plots.draw_pairs(predicted["views"][:, 0], predicted["views"][:, 1], path)
    elif task == "classify":
        probability, malignancy = scipy.special.expit(predicted["logit"]), batch["ratings"][:, :, -1]
        gallery.draw_patches(batch["image"], batch["readers"], probability, malignancy, titles, path)
    elif task == "sift":
        gallery.draw_stacks(batch["image"], scipy.special.expit(predicted["logit"]), batch["label"], titles, path)
    elif task == "diagnose":
        probability = scipy.special.expit(predicted["logit"])
        gallery.draw_bags(batch["image"], batch["inside"], predicted["attention"], probability, titles, path)
    else:
        raise ValueError(f"there are no examples of the task {task!r}")
