"""Cross-validation of a classifier by patient: every patient is scored by the one run that was not trained on them.

    lungjax prepare --source lidc-nodules.npz --out data/nodules
    python scripts/cross_validate.py --data data/nodules --out workdir/folds
    python scripts/cross_validate.py --data data/nodules --out workdir/folds-simclr --pretrain configs/simclr.py:patches
    python scripts/cross_validate.py --data data/nodules --out workdir/folds-diagnose --config configs/diagnose.py

Each fold is a run of the training loop on a copy of the data whose split has the fold's patients as test patients.
`--pretrain` first trains an encoder on the train patients of the same fold. Options after `--` are of the classifier's
configuration, for instance `-- --config.seed=1`; with `-- --config.replicas=K`, K folds are trained at a time in one
program, for a GPU that one small network does not fill. The same command resumes where it stopped. LIDC-IDRI-0001 and
-0003 are never trained on, and are not scored here. Figures: OUT/cross-validation.json, a table, charts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import jax
from absl import flags
from ml_collections import config_flags

from lungjax import compiled
from lungjax.data import folds, shards, splits
from lungjax.errors import InputError
from lungjax.evaluation import run_evaluate
from lungjax.evaluation.plots import classification_report
from lungjax.main import last_line
from lungjax.train import config_checks, devices, loop, runs, trained
from lungjax.train import workdir as folder
from lungjax.train.watch import NotFinite

ROOT = Path(__file__).parents[1]


def main(argv: list[str] | None = None) -> int:
    """Trains the folds that are not trained yet, then pools their predictions."""
    parser = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="prepared folder")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--folds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--config", default="configs/classify.py", help="default: %(default)s")
    parser.add_argument("--pretrain", help="configuration of a SimCLR run that each fold starts with")
    parser.add_argument("--pretrain-option", action="append", default=[], help="option of that run: --config.KEY=VALUE")
    parser.add_argument("options", nargs="*", help="options of the classifier's runs")
    arguments = parser.parse_args(argv)
    compiled.keep()
    try:
        devices.find()
        return 0 if cross_validate(arguments) else 1
    except (InputError, NotFinite, flags.Error, ValueError) as error:
        print(f"cross_validate: error: {error}", file=sys.stderr)
        return 2


def cross_validate(arguments: argparse.Namespace) -> bool:
    """What `main` does; False where SIGTERM or Ctrl-C stopped it."""
    config = _read_config(arguments.config, arguments.options)
    if config.task not in run_evaluate.CLASSIFIERS:
        known = ", ".join(run_evaluate.CLASSIFIERS)
        raise InputError(f"config.task is {config.task}; a cross-validation is of {known}.")
    pretrain = _read_config(arguments.pretrain, arguments.pretrain_option) if arguments.pretrain else None
    folders = [arguments.out / f"fold-{fold}" for fold in range(arguments.folds)]
    data = [
        folds.write(arguments.data, at / "data", fold=fold, folds=arguments.folds) for fold, at in enumerate(folders)
    ]
    changes = [{"data.path": str(path)} for path in data]
    if pretrain is not None:
        encoders = [(runs.alone(pretrain, own), at / "pretrained") for own, at in zip(changes, folders, strict=True)]
        if not _train(encoders, at_once=pretrain.get("replicas", 1)):
            return False
        changes = [{**own, "init_from": str(at)} for own, (_, at) in zip(changes, encoders, strict=True)]
    classifiers = [(runs.alone(config, own), at / "run") for own, at in zip(changes, folders, strict=True)]
    if not _train(classifiers, at_once=config.get("replicas", 1)):
        return False
    module = run_evaluate.CLASSIFIERS[config.task]
    scores = []
    for path, (_, workdir) in zip(data, classifiers, strict=True):
        of_fold = module.score_split(trained.open_trained(workdir), shards.open_dataset(path), split="test")
        # Without the patients that are in no fold.
        scores.append(of_fold.only(~of_fold.index["patient_id"].isin(splits.ALWAYS_TEST).to_numpy()))
    _write_report(scores, arguments.out, module)
    return True


def _read_config(name: str, options: list[str]) -> Any:
    """Raises InputError where the file cannot be read, or an option is none of its keys."""

    def read(options: list[str]) -> Any:
        argv = ["cross_validate", f"--config={ROOT / name}", *options]
        values = flags.FlagValues()
        config = config_flags.DEFINE_config_file("config", lock_config=True, flag_values=values, sys_argv=argv)
        values(argv)
        return config.value

    try:
        config_checks.check_overrides(options, read([]))
        return read(options)
    except (InputError, flags.UnrecognizedFlagError):
        raise
    except Exception as error:  # A configuration is code: it and ml_collections may raise anything.
        raise InputError(f"--config {name}: {last_line(error)}") from error


def _train(planned: list[runs.Planned], *, at_once: int) -> bool:
    """Trains the folds, `at_once` at a time; False where SIGTERM or Ctrl-C stopped them."""
    at_once = max(at_once, 1)
    for start in range(0, len(planned), at_once):
        for together in runs.in_groups(planned[start : start + at_once]):
            with contextlib.ExitStack() as held:
                for _, workdir in together:
                    held.enter_context(folder.held(workdir))
                if not loop.train_together(together):
                    return False
            jax.clear_caches()  # The compiled programs of many runs would fill the memory.
    return True


def _write_report(scores: list[Any], out: Path, module: Any) -> None:
    pooled = module.pooled(scores)
    report = module.score_figures(pooled)
    report["folds"] = [module.score_figures(of_fold)["roc_auc"] for of_fold in scores]
    file = out / "cross-validation.json"
    file.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    table = (
        classification_report.classification_table(report, unit=module.UNIT)
        + "\nROC AUC of each fold: "
        + ", ".join(classification_report.cell(auc) for auc in report["folds"])
    )
    file.with_suffix(".table.txt").write_text(table + "\n")
    module.write_predictions(pooled, file.with_suffix(".csv"))
    module.draw_charts(pooled, report, file)
    print(table)


if __name__ == "__main__":
    sys.exit(main())
