"""Weights between those of a network and of one whose training went on from it.

    python scripts/average_models.py workdir/slices-scans workdir/slices-wide --share 0.3 --data data/slices --out DIR

Each weight is 0.7 times the first network's and 0.3 times the second's (Wortsman et al., Robust fine-tuning of
zero-shot models, CVPR 2022): on what the first was trained for it is nearly as good as the first, and on what the
second has learnt in addition nearly as good as the second. The result is calibrated on the val patients of `--data`.
`--out` is a model as `lungjax export` writes it, in float32 and without a card; to export it again makes one.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from pathlib import Path

import jax

from lungjax import unfinished
from lungjax.data import bags, shards, splits
from lungjax.errors import InputError
from lungjax.tasks.kinds import TASKS
from lungjax.train import calibrate, mesh
from lungjax.train.trained import open_trained, write_exported


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, help="a run or a model")
    parser.add_argument("second", type=Path, help="one of the same network, whose configuration is kept")
    parser.add_argument("--share", type=float, required=True, help="of the second, from 0 to 1")
    parser.add_argument("--data", type=Path, required=True, help="prepared folder")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    arguments = parser.parse_args()
    try:
        average(arguments.first, arguments.second, arguments.out, share=arguments.share, data=arguments.data)
    except InputError as error:
        parser.error(str(error))


def average(first: Path, second: Path, out: Path, *, share: float, data: Path) -> None:
    """Writes the model.

    Raises:
      InputError: the networks differ, `share` is not from 0 to 1, or `out` exists.
    """
    if not 0 <= share <= 1:
        raise InputError(f"--share is {share}; it must be from 0 to 1.")
    if out.exists():
        raise InputError(f"{out}: exists already; name another --out, or remove it.")
    one, other = open_trained(first), open_trained(second)
    if one.config.model != other.config.model:
        raise InputError(f"{first} and {second} are different networks; weights of one network alone can be averaged.")
    variables = jax.tree.map(lambda a, b: (1 - share) * a + share * b, one.variables, other.variables)
    config, dataset = other.config, shards.open_dataset(data)
    slices = bags.make_reader(dataset, config.data, task=config.task)
    rows = slices.rows(split="val", slices=config.data.slices)
    task = TASKS[config.task](
        config, intensity=dataset.intensity, readers=dataset.readers, mesh=mesh.make_mesh(config.data.batch_size)
    )
    known, summary = calibrate.fit(task, variables, slices, rows, config.data.batch_size)
    averaged = dataclasses.replace(
        other,
        variables=variables,
        patients=splits.most_seen(one.patients, other.patients),
        origin={**other.origin, "command": shlex.join(["python", *sys.argv])},
        calibration={**known, "step": other.step},
        operating_points={},
        figures={},
    )
    with unfinished.beside(out) as holder:
        folder = holder / out.name
        folder.mkdir()
        write_exported(averaged, folder, dtype="float32")
        folder.replace(out)
    print(f"{out}: {summary}")


if __name__ == "__main__":
    main()
