"""What each ingredient of the segmenter contributes: the recipe compared with variants that change one thing.

    python scripts/ablation.py --out workdir/ablation --config configs/segment.py:slices \
        [--pretrained WORKDIR] [--variants recipe,targets=soft,...] [--seeds 1] [--config.steps=1200 ...]

Every run is a run of the training loop with the same budget of steps, scored on the test patients by the checkpoint
that is best on the val patients: figures to explain the recipe, not to choose it. OUT/table.md has the results so
far: the pooled Dice of each variant, and its difference from the recipe's, paired by patient. The same command resumes
where it was stopped. With `--seeds N --config.replicas=K`, K seeds of a variant are trained at a time in one program,
for a GPU that one small network does not fill; the results are the same within rounding. Test-time flips need no run:
`lungjax evaluate --model OUT/runs/recipe-0 [--flips]`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax
from absl import flags
from ml_collections import config_flags

from lungjax.data import shards
from lungjax.errors import InputError
from lungjax.evaluation import run_study as runs
from lungjax.evaluation.stats import label_efficiency
from lungjax.evaluation.stats.label_efficiency import Run
from lungjax.preparation.builtin import resolve
from lungjax.train.runs import alone
from lungjax.train.watch import NotFinite

RECIPE = "recipe"
_WEAK = {
    "augment.rotation_deg": 20.0,
    "augment.zoom": 0.15,
    "augment.shift": 0.05,
    "augment.intensity_jitter": 0.15,
    "augment.noise": 0.02,
}
VARIANTS: dict[str, dict[str, Any]] = {
    RECIPE: {},
    "targets=majority": {"targets": "majority"},
    "targets=soft": {"targets": "soft"},
    "weak augmentation": _WEAK,
    "flips and quarter turns alone": dict.fromkeys(_WEAK, 0.0),
    "no Dice loss": {"dice_weight": 0.0},
    "weight decay 1e-4": {"optimizer.weight_decay": 1e-4},
    "no averaging of weights": {"average_decay": 0.0},
    "lung window": {"augment.window_hu": (-600.0, 1500.0)},
    "width 32": {"model.encoder.width": 32, "model.decoder": (128, 64, 32)},
    "depth 18": {"model.encoder.depth": 18},
    "patches of 2 px": {"model.encoder.patch_px": 2},
}
"""The values that each variant changes, by the name of its row."""
PRETRAINED = "from pretraining"

_FLAGS = flags.FlagValues()
_CONFIG = config_flags.DEFINE_config_file("config", None, "as for training", flag_values=_FLAGS)
_OUT = flags.DEFINE_string("out", None, "folder of the study", flag_values=_FLAGS)
_PRETRAINED = flags.DEFINE_string("pretrained", "", "a pretraining run's workdir, for a row", flag_values=_FLAGS)
_VARIANTS = flags.DEFINE_list("variants", [], "rows to make (default: all)", flag_values=_FLAGS)
_SEEDS = flags.DEFINE_integer("seeds", 1, "runs of each", flag_values=_FLAGS)


def study(config: Any, variants: dict[str, dict[str, Any]], *, seeds: int, out: Path) -> bool:
    """Does all runs that are not finished, `config.replicas` seeds of a variant at a time; these seeds of all variants
    come before the next ones.

    Args:
      config: a segmenter's configuration.
      variants: the values that each variant changes, by the name of its row, including `RECIPE`.
      seeds: their number.
      out: the study's folder.

    Returns:
      False where SIGTERM or Ctrl-C stopped it; the same command resumes.
    """
    dataset = shards.open_dataset(Path(config.data.path))
    done: list[Run] = []
    at_once = max(config.get("replicas", 1), 1)
    for first in range(0, seeds, at_once):
        together = range(first, min(first + at_once, seeds))
        for name, changes in variants.items():
            planned = [
                (alone(config, {**changes, "seed": seed}), out / "runs" / f"{name.replace(' ', '-')}-{seed}")
                for seed in together
            ]
            for seed, scores in zip(together, runs.scores(planned, dataset, at_once=at_once), strict=False):
                if scores is None:
                    return False
                done.append(Run(name, 1.0, seed, patients=len(scores["train_patients"]), scored=scores["scored"]))
                (out / "table.md").write_text(label_efficiency.table_of_changes(done, base=RECIPE) + "\n")
    print((out / "table.md").read_text())
    return True


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & {*argv}:
        print(__doc__)
        return 0
    try:
        _FLAGS(argv)
        for flag, value in (("config", _CONFIG.value), ("out", _OUT.value)):
            if value is None:
                raise InputError(f"--{flag} is missing; see --help for an example.")
        config, out = _CONFIG.value, Path(str(_OUT.value))
        known = VARIANTS | ({PRETRAINED: {"init_from": _PRETRAINED.value}} if _PRETRAINED.value else {})
        unknown = [name for name in _VARIANTS.value if name not in known]
        if unknown:
            raise InputError(f"--variants: there is no {unknown[0]!r}; there are {', '.join(known)}.")
        config.data.path = str(resolve(config.data.path))
        chosen = {name: known[name] for name in dict.fromkeys([RECIPE, *(_VARIANTS.value or known)])}
        jax.config.update("jax_compilation_cache_dir", str((out / "compiled").absolute()))
        return 0 if study(config, chosen, seeds=_SEEDS.value, out=out) else 1
    except (InputError, NotFinite, flags.Error, ValueError) as error:
        print(f"ablation: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv))
