"""Does pretraining help? Fine-tuning on 1, 5, 10, 25 and 100 % of the train patients, from scratch and pretrained.

    python scripts/label_efficiency.py --out workdir/efficiency --config configs/segment.py:slices \
        --pretrained simclr=workdir/simclr [--pretrained NAME=WORKDIR ...] \
        [--shares 1,5,10,25,100] [--seeds 3] [--split val] [--config.steps=300 ...] [--own NAME:KEY=VALUE ...]

Of a segmenter the pooled Dice, of a nodule classifier (`--config configs/classify.py`) the ROC AUC of malignancy.

Every run is a run of the training loop with the given configuration, and so with the same budget of steps, but for
what a start has of its own: with `--pretrained short= --own short:steps=100 --own short:eval_every=100`, runs from
scratch of a hundred steps stand beside the others. By the checkpoint that is best on all val patients it is scored on
the test patients, or with `--split val` on these val patients, to choose between pretrainings. The same command resumes
where it was stopped; with another --pretrained it does only the missing runs. Seed 0 of all shares comes first. After
each run, OUT/table.md and OUT/chart.png have the results so far; OUT/runs/*/scores.json has each run's counts or logits
by patient.

A share's patients are the first in an order by a hash of seed and ID: for one seed, a smaller share is a subset of a
larger one. Seeds differ in these patients, the order of batches, and the initial random weights.

With `--config.replicas=K`, up to K runs that follow each other and have the same settings are trained at a time in one
program, for a GPU that one small network does not fill; the results are the same within rounding.

On two CPU cores a step of `configs/segment.py:slices`, batch 32, takes half a second: 300 steps a run, validated once,
are 30 runs in about an hour and a half. XLA's compiled programs are kept in OUT/compiled and are made once for each
seed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags
from ml_collections import config_flags

from lungjax.data import shards, splits
from lungjax.errors import InputError
from lungjax.evaluation import run_study as runs
from lungjax.evaluation.stats import label_efficiency
from lungjax.evaluation.stats.label_efficiency import SCRATCH, Run
from lungjax.preparation.builtin import resolve
from lungjax.train import config_checks
from lungjax.train.runs import OWN, alone
from lungjax.train.watch import NotFinite


def _read(argv: Sequence[str]) -> Any:
    """The command's arguments, and the configuration that they lead to.

    Raises:
      flags.Error, ValueError: an argument is wrong.
    """
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "as for training", flag_values=values, sys_argv=[*argv])
    flags.DEFINE_string("out", None, "folder of the study", flag_values=values)
    flags.DEFINE_multi_string("pretrained", [], "NAME=WORKDIR of a pretraining run", flag_values=values)
    flags.DEFINE_multi_string("own", [], "NAME:KEY=VALUE, of the runs of one start", flag_values=values)
    flags.DEFINE_list("shares", "1,5,10,25,100", "per cent of the train patients", flag_values=values)
    flags.DEFINE_enum("split", "test", ["val", "test"], "patients to score; choose by val", flag_values=values)
    flags.DEFINE_integer("seeds", 3, "runs of each start and share", flag_values=values)
    values([*argv])
    for flag in ("config", "out"):
        if values[flag].value is None:
            raise InputError(f"--{flag} is missing; see --help for an example.")
    return values


def study(
    starts: Mapping[str, Any], *, shares: list[float], seeds: int, out: Path, split: splits.Split = "test"
) -> bool:
    """Does all runs that are not finished, `config.replicas` at a time.

    Args:
      starts: by name, the configuration of its runs, of a segmenter or a nodule classifier; `SCRATCH` is the first.
      shares: of the train patients, in (0, 1].
      seeds: their number.
      out: the study's folder.
      split: of the patients to score, `val` or `test`.

    Returns:
      False where SIGTERM or Ctrl-C stopped it; the same command resumes.
    """
    config = starts[SCRATCH]
    dataset = shards.open_dataset(Path(config.data.path))
    configs = list(_runs(starts, shares=shares, seeds=seeds))
    planned = [(one, out / "runs" / f"{start}-{100 * one.data.train_share:g}-{one.seed}") for start, one in configs]
    at_once = max(config.get("replicas", 1), 1)
    done: list[Run] = []
    began = time.monotonic()
    results = runs.scores(planned, dataset, at_once=at_once, split=split)
    for (start, run_config), (_, workdir), scores in zip(configs, planned, results, strict=False):
        if scores is None:
            return False
        patients, share = len(scores["train_patients"]), run_config.data.train_share
        measure = runs.MEASURES[config.task]
        done.append(Run(start, share, run_config.seed, patients, scores["scored"], measure, split))
        (out / "table.md").write_text(label_efficiency.table(done) + "\n")
        label_efficiency.chart(done, out / "chart.png")
        minutes = (time.monotonic() - began) / 60
        print(f"run {len(done)} of {len(configs)}: {workdir.name} is done, {minutes:.0f} min so far")
    table = label_efficiency.table(done, corrected=True)
    (out / "table.md").write_text(table + "\n")
    print(table)
    return True


def _runs(starts: Mapping[str, Any], *, shares: list[float], seeds: int) -> Iterator[tuple[str, Any]]:
    """The start's name and the configuration of each run; all runs of a seed come before the next seed."""
    for seed in range(seeds):
        for share in shares:
            for start, config in starts.items():
                yield start, alone(config, {"seed": seed, "data.train_share": share})


def _starts(argv: Sequence[str]) -> dict[str, Any]:
    """Of each start, by name, the configuration; the name of a lone WORKDIR is its folder's.

    Raises:
      InputError: two starts have the same name; or `--own` is of no start, or of a key that there is not or that the
        study sets.
    """
    given = _read(argv)
    sources = {SCRATCH: ""}
    for argument in given["pretrained"].value:
        name, _, source = argument.rpartition("=")
        name = name or Path(source).resolve().name
        if name in sources:
            raise InputError(f"--pretrained {argument}: there is already a start {name!r}; choose another NAME.")
        sources[name] = source
    own: dict[str, list[str]] = {name: [] for name in sources}
    for argument in given["own"].value:
        name, _, setting = argument.partition(":")
        if name not in own or "=" not in setting:
            raise InputError(f"--own {argument}: use NAME:KEY=VALUE, where NAME is one of {', '.join(own)}.")
        key = setting.partition("=")[0]
        if key in OWN:
            raise InputError(f"--own {argument}: config.{key} is set by the study, the same way for all starts.")
        own[name].append(f"--config.{setting}")
    starts = {}
    for name, source in sources.items():
        config_checks.check_overrides(own[name], given["config"].value)
        config = starts[name] = _read([*argv, *own[name]])["config"].value
        config.data.path, config.init_from = str(resolve(config.data.path)), source
    return starts


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & {*argv}:
        print(__doc__)
        return 0
    try:
        given = _read(argv)
        shares = [float(percent) / 100 for percent in given["shares"].value]
        starts, out = _starts(argv), Path(given["out"].value)
        jax.config.update("jax_compilation_cache_dir", str((out / "compiled").absolute()))
        done = study(starts, shares=shares, seeds=given["seeds"].value, out=out, split=given["split"].value)
        return 0 if done else 1
    except (InputError, NotFinite, flags.Error, ValueError) as error:
        print(f"label_efficiency: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv))
