"""The runs of a study that compares many: trained to their end, then scored on each patient of a split, once."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lungjax import metrics
from lungjax.data import loader, shards, splits
from lungjax.errors import InputError
from lungjax.evaluation import run_nodule_classifier
from lungjax.evaluation.classification import binary_scores
from lungjax.evaluation.run_segmentation import Scorer
from lungjax.evaluation.stats import bootstrap
from lungjax.evaluation.stats.label_efficiency import Measure
from lungjax.train import loop, runs, trained
from lungjax.train import workdir as folder
from lungjax.train.runs import Planned

MEASURES: dict[str, Measure] = {"segment": "dice", "classify": "roc_auc"}
"""Of each task, the figure that a study compares."""


def scores(
    planned: Sequence[Planned], dataset: shards.Dataset, *, at_once: int = 1, split: splits.Split = "test"
) -> Iterator[dict[str, Any] | None]:
    """Trains segmenters or nodule classifiers, resuming where they were stopped, and scores the best checkpoint of
    each; a finished run is not repeated.

    Args:
      planned: configuration and workdir of each run. The result is stored in the workdir as `scores.json`, or
        `scores-val.json`, and read by the next call.
      dataset: the data set of the configurations.
      at_once: how many are trained together, see `lungjax.train.loop.train_together`: of those that follow each other
        and are computed alike.
      split: of the patients to score: `val` to choose by, `test` to look at once.

    Yields:
      Of each run in turn: `scored`, of each patient by id: of a segmenter, the counts of true positive, false positive,
      false negative and true negative pixels; of a nodule classifier, a list of [logit, 1 malignant or 0 benign] of
      each nodule that is either. And `dice`, pooled, or `roc_auc`; `step`; `train_patients` and `train_slices`, what it
      was trained on. None, as the last, where a SIGTERM or Ctrl-C ended the training.

    Raises:
      InputError: a workdir was started with another configuration, or one for another task.
    """
    for group in _groups(planned, at_once):
        for config, workdir in group:
            if config.task not in MEASURES:
                raise InputError(f"config.task is {config.task}; a study compares {' and '.join(MEASURES)}.")
            folder.check_begun(workdir, config, dataset.manifest["split"]["patients"])  # Also of a finished run.
        if not _train(group, dataset, split):
            yield None
            return
        for _, workdir in group:
            result = json.loads(_file(workdir, split).read_text())
            if "counts" in result:  # So a study's runs were scored before there were others than of segmenters.
                result["scored"] = result.pop("counts")
            yield result


def _groups(planned: Sequence[Planned], at_once: int) -> Iterator[list[Planned]]:
    for _, group in itertools.groupby(planned, lambda run: runs.program(run[0])):
        alike = list(group)
        yield from (alike[start : start + at_once] for start in range(0, len(alike), at_once))


def _train(group: Sequence[Planned], dataset: shards.Dataset, split: splits.Split) -> bool:
    """Trains and scores those that are not scored yet; False where a SIGTERM or Ctrl-C ended the training."""
    left = [(config, workdir) for config, workdir in group if not _file(workdir, split).exists()]
    for together in runs.in_groups(left):
        if not loop.train_together(together):
            return False
        for config, workdir in together:
            result = _score(workdir, dataset, split)
            folder.write_text(_file(workdir, split), json.dumps(result, indent=1) + "\n")
            measure = MEASURES[config.task]
            print(f"{workdir.name}: {split} {measure} {result[measure]:.3f}, step {result['step']}")
        jax.clear_caches()  # The compiled programs of many runs would fill the memory.
    return True


def _file(workdir: Path, split: splits.Split) -> Path:
    return workdir / ("scores.json" if split == "test" else f"scores-{split}.json")


def _score(workdir: Path, dataset: shards.Dataset, split: splits.Split) -> dict[str, Any]:
    model = trained.open_trained(workdir)
    data = model.config.data
    rows = loader.select_rows(
        dataset, split="train", slices=data.slices, share=data.train_share, seed=model.config.seed
    )
    return {
        **(_nodules if model.config.task == "classify" else _pixels)(model, dataset, split),
        "step": model.step,
        "train_patients": sorted(set(dataset.index["patient_id"].iloc[rows])),
        "train_slices": len(rows),
    }


def _pixels(model: trained.Trained, dataset: shards.Dataset, split: splits.Split) -> dict[str, Any]:
    rows = loader.select_rows(dataset, split=split, slices=model.config.data.slices)
    counts = []
    for batch, predicted in Scorer(model.config, dataset, model.variables).predictions(rows):
        majority = metrics.majority(batch["readers"], readers=dataset.readers)
        counts.append(metrics.confusion(predicted["logit"] > 0, majority))
    patients = dataset.index["patient_id"].iloc[rows]
    sums = bootstrap.patient_sums(np.concatenate(counts), list(patients))
    of_patient = zip(sorted(set(patients)), sums, strict=True)
    return {
        "dice": float(metrics.scores(sums.sum(axis=0))["dice"]),
        "scored": {patient: own.astype(int).tolist() for patient, own in of_patient},
    }


def _nodules(model: trained.Trained, dataset: shards.Dataset, split: splits.Split) -> dict[str, Any]:
    scores = run_nodule_classifier.score_split(model, dataset, split=split)
    scores = scores.only(~np.isnan(scores.label))
    scored: dict[str, list[list[float]]] = {}
    for patient, logit, label in zip(scores.index["patient_id"], scores.logit, scores.label, strict=True):
        scored.setdefault(patient, []).append([float(logit), float(label)])
    roc_auc = binary_scores.ranking(scores.label > 0.5, scores.logit)[0, 0]
    return {"roc_auc": float(roc_auc), "scored": dict(sorted(scored.items()))}
