"""Sheets of examples: what a network was shown, what it predicted, and what the readers said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy.special

from lungjax.evaluation.plots import gallery, training_plots

Arrays = Mapping[str, np.ndarray]


def draw(task: str, batch: Arrays, predicted: Arrays, titles: Sequence[str], path: Path, *, readers: int) -> None:
    """Writes the sheet of a task.

    Args:
      task: `config.task`.
      batch: as `lungjax.data.loader.Batch`, with the `spacing_mm` between the pixels of a row.
      predicted: by name what the task predicted of the batch, see the task's `make`.
      titles: one an example.
      path: the PNG; its folder is made where missing.
      readers: how many looked at each scan.
    """
    if task == "segment":
        training_plots.examples(
            predicted["image"],
            batch["readers"],
            scipy.special.expit(predicted["logit"]),
            list(titles),
            path,
            spacing_mm=batch["spacing_mm"].tolist(),
            slots=readers,
        )
    elif task == "pretrain":
        training_plots.pairs(predicted["views"][:, 0], predicted["views"][:, 1], path)
    elif task == "classify":
        probability, malignancy = scipy.special.expit(predicted["logit"]), batch["ratings"][:, :, -1]
        gallery.patches(batch["image"], batch["readers"], probability, malignancy, titles, path)
    elif task == "sift":
        gallery.stacks(batch["image"], scipy.special.expit(predicted["logit"]), batch["label"], titles, path)
    elif task == "diagnose":
        probability = scipy.special.expit(predicted["logit"])
        gallery.bags(batch["image"], batch["inside"], predicted["attention"], probability, titles, path)
    else:
        raise ValueError(f"there are no examples of the task {task!r}")
