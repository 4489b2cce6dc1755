"""Cross-validation of a grader by patient: every patient is graded by the one run that never saw it.

    lungjax prepare --source lidc-nodules.npz --out data/nodules
    python scripts/cross_validate.py --data data/nodules --out workdir/folds
    python scripts/cross_validate.py --data data/nodules --out workdir/folds-simclr --pretrain configs/simclr.py:patches
    python scripts/cross_validate.py --data data/nodules --out workdir/folds-diagnose --config configs/diagnose.py

Each fold trains by the one loop, on a copy of the data's split in which the fold's patients are the test patients;
`--pretrain` trains an encoder on the same fold's train patients first. Options after `--` go to the grader's runs, for
instance `-- --config.seed=1`. The same command goes on where it stopped. LIDC-IDRI-0001 and -0003 are never trained on,
and do not count here. Figures: OUT/cross-validation.json, a table, charts.
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
from lungjax.evaluation.plots import classification_report as text
from lungjax.train import trained

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Trains what is not trained yet, then pools the folds."""
    parser = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="prepared folder")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--folds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--config", default="configs/classify.py", help="default: %(default)s")
    parser.add_argument("--pretrain", help="configuration of a SimCLR run that each fold begins with")
    parser.add_argument("--pretrain-option", action="append", default=[], help="of that run: --config.KEY=VALUE")
    parser.add_argument("options", nargs="*", help="of the grader's runs")
    arguments = parser.parse_args()
    graded, module = [], None
    for fold in range(arguments.folds):
        folder = arguments.out / f"fold-{fold}"
        data = folds.write(arguments.data, folder / "data", fold=fold, folds=arguments.folds)
        start = []
        if arguments.pretrain:
            _train(arguments.pretrain, folder / "pretrained", data, arguments.pretrain_option)
            start = [f"--config.init_from={folder / 'pretrained'}"]
        _train(arguments.config, folder / "run", data, [*start, *arguments.options])
        model = trained.open_trained(folder / "run")
        module = run_evaluate.GRADERS[model.config.task]
        found = module.grade(model, shards.open_dataset(data), split="test")
        # Without those who are in no fold.
        graded.append(found.only(~found.index["patient_id"].isin(splits.ALWAYS_TEST).to_numpy()))
    _report(graded, arguments.out, module)


def _train(config: str, workdir: Path, data: Path, options: list[str]) -> None:
    command = [sys.executable, "-m", "lungjax.main", f"--config={ROOT / config}", f"--workdir={workdir}"]
    subprocess.run([*command, f"--config.data.path={data}", *options], check=True)


def _report(graded: list[Any], out: Path, module: Any) -> None:
    pooled = module.pooled(graded)
    found = module.report(pooled)
    found["folds"] = [module.report(one)["roc_auc"] for one in graded]
    file = out / "cross-validation.json"
    file.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
    table = (
        text.table(found, unit=module.UNIT)
        + "\nROC AUC of each fold: "
        + ", ".join(text.cell(one) for one in found["folds"])
    )
    file.with_suffix(".table.txt").write_text(table + "\n")
    module.write_predictions(pooled, file.with_suffix(".csv"))
    module.draw(pooled, found, file)
    print(table)


if __name__ == "__main__":
    main()
