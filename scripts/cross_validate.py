"""Cross-validation of a classifier by patient: every patient is scored by the one run that was not trained on them.

    lungjax prepare --source lidc-nodules.npz --out data/nodules
    python scripts/cross_validate.py --data data/nodules --out workdir/folds
    python scripts/cross_validate.py --data data/nodules --out workdir/folds-simclr --pretrain configs/simclr.py:patches
    python scripts/cross_validate.py --data data/nodules --out workdir/folds-diagnose --config configs/diagnose.py

Each fold is a run of the training loop on a copy of the data whose split has the fold's patients as test patients.
`--pretrain` first trains an encoder on the train patients of the same fold. Options after `--` are passed to the
classifier's runs, for instance `-- --config.seed=1`. The same command resumes where it stopped. LIDC-IDRI-0001 and
-0003 are never trained on, and are not scored here. Figures: OUT/cross-validation.json, a table, charts.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from lungjax.data import folds, shards, splits
from lungjax.evaluation import run_evaluate
from lungjax.evaluation.plots import classification_report
from lungjax.train import trained

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Trains the folds that are not trained yet, then pools their predictions."""
    parser = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="prepared folder")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--folds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--config", default="configs/classify.py", help="default: %(default)s")
    parser.add_argument("--pretrain", help="configuration of a SimCLR run that each fold starts with")
    parser.add_argument("--pretrain-option", action="append", default=[], help="option of that run: --config.KEY=VALUE")
    parser.add_argument("options", nargs="*", help="options of the classifier's runs")
    arguments = parser.parse_args()
    scores, module = [], None
    for fold in range(arguments.folds):
        folder = arguments.out / f"fold-{fold}"
        data = folds.write(arguments.data, folder / "data", fold=fold, folds=arguments.folds)
        start = []
        if arguments.pretrain:
            _train(arguments.pretrain, folder / "pretrained", data, arguments.pretrain_option)
            start = [f"--config.init_from={folder / 'pretrained'}"]
        _train(arguments.config, folder / "run", data, [*start, *arguments.options])
        model = trained.open_trained(folder / "run")
        module = run_evaluate.CLASSIFIERS[model.config.task]
        of_fold = module.score_split(model, shards.open_dataset(data), split="test")
        # Without the patients that are in no fold.
        scores.append(of_fold.only(~of_fold.index["patient_id"].isin(splits.ALWAYS_TEST).to_numpy()))
    _write_report(scores, arguments.out, module)


def _train(config: str, workdir: Path, data: Path, options: list[str]) -> None:
    command = [sys.executable, "-m", "lungjax.main", f"--config={ROOT / config}", f"--workdir={workdir}"]
    subprocess.run([*command, f"--config.data.path={data}", *options], check=True)


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
    main()
