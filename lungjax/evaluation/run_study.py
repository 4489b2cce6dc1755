"""One run of a study that compares many: trained to its end, then scored on each test patient, once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lungjax import metrics
from lungjax.data import loader, shards
from lungjax.evaluation.run_segmentation import Scorer
from lungjax.evaluation.stats import bootstrap
from lungjax.tasks.task import Config
from lungjax.train import loop, trained
from lungjax.train import workdir as folder

SCORES_FILE = "scores.json"


def scores(config: Config, workdir: Path, dataset: shards.Dataset) -> dict[str, Any] | None:
    """Trains a segmenter, resuming where it was stopped, and scores its best checkpoint; a finished run is not
    repeated.

    Args:
      config: the run's configuration.
      workdir: the run's folder. The result is stored there as `scores.json` and read by the next call.
      dataset: the data set of the configuration.

    Returns:
      `counts`: true positive, false positive, false negative, true negative pixels of each test patient, by id; `dice`,
      pooled; `step`; `train_patients` and `train_slices`, what it was trained on. None where a SIGTERM or Ctrl-C ended
      the training.

    Raises:
      InputError: the workdir was started with another configuration.
    """
    folder.check_begun(workdir, config, dataset.manifest["split"]["patients"])  # Also of a finished run.
    file = workdir / SCORES_FILE
    if not file.exists():
        if not loop.train_and_evaluate(config, workdir):
            return None
        result = _score(workdir, dataset)
        folder.write_text(file, json.dumps(result, indent=1) + "\n")
        print(f"{workdir.name}: test Dice {result['dice']:.3f}, step {result['step']}")
        jax.clear_caches()  # The compiled programs of many runs would fill the memory.
    return json.loads(file.read_text())


def _score(workdir: Path, dataset: shards.Dataset) -> dict[str, Any]:
    model = trained.open_trained(workdir)
    config = model.config
    rows = loader.select_rows(dataset, split="test", slices=config.data.slices)
    counts = []
    for batch, predicted in Scorer(config, dataset, model.variables).predictions(rows):
        majority = metrics.majority(batch["readers"], readers=dataset.readers)
        counts.append(metrics.confusion(predicted["logit"] > 0, majority))
    patients = dataset.index["patient_id"].iloc[rows]
    sums = bootstrap.patient_sums(np.concatenate(counts), list(patients))
    train_rows = loader.select_rows(
        dataset, split="train", slices=config.data.slices, share=config.data.train_share, seed=config.seed
    )
    return {
        "dice": float(metrics.scores(sums.sum(axis=0))["dice"]),
        "step": model.step,
        "train_patients": sorted(set(dataset.index["patient_id"].iloc[train_rows])),
        "train_slices": len(train_rows),
        "counts": {
            patient: sums_of_patient.astype(int).tolist()
            for patient, sums_of_patient in zip(sorted(set(patients)), sums, strict=True)
        },
    }
