"""How long `lungjax evaluate` of a segmenter takes, here and by another checkout, and whether their figures agree.

    python scripts/bench_evaluate.py --data data/slices [--patients 40] [--rounds 3]
    git worktree add workdir/before 20a579c
    python scripts/bench_evaluate.py --data data/slices --patients 40 --rounds 1 --against workdir/before

Whole commands in processes of their own, by turns, see `bench_commands.py`: from start to pictures. Printed are the
median processor time, the median time, the largest resident memory, and how many figures of the reports of both
checkouts are the same to the last digit, of those that both have; where one is not, the exit code is 1.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import bench_commands
import bench_train
import numpy as np

from lungjax.data import loader, manifest, shards
from lungjax.errors import InputError
from lungjax.train.trained import open_trained


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a prepared folder")
    parser.add_argument("--model", type=Path, default="segmenter", help="default: %(default)s")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test", help="default: %(default)s")
    parser.add_argument("--patients", type=int, help="only that many patients of the split; default: all")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another checkout of lungjax")
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _run(given, Path(folder))
    except InputError as error:
        parser.error(str(error))


def _run(given: argparse.Namespace, folder: Path) -> int:
    model = str(given.model.resolve() if given.model.exists() else given.model)
    data = first_patients(given.data, folder / "data", split=given.split, patients=given.patients)
    dataset = shards.open_dataset(data)
    rows = loader.select_rows(dataset, split=given.split, slices=open_trained(given.model).config.data.slices)
    patients = dataset.index["patient_id"].iloc[rows].nunique()
    print(
        f"{datetime.date.today()}, {bench_train.describe()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n"
        f"{given.model}: {len(rows)} slices of {patients} patients, split {given.split}, rounds: {given.rounds}"
    )

    def arguments(out: Path) -> list[str]:
        command = ["evaluate", "--model", model, "--data", str(data), "--split", given.split]
        return [*command, "--out", str(out.with_suffix(".json"))]

    taken = bench_commands.by_turns(arguments, folder, rounds=given.rounds, against=given.against)
    bench_commands.report(taken)
    print(f"load at the end: {os.getloadavg()[0]:.1f}")
    return 0 if given.against is None else _compare_reports(folder)


def first_patients(data: Path, out: Path, *, split: str, patients: int | None) -> Path:
    """A prepared folder of the first patients of a split alone: the same shards, a shorter index.

    Returns:
      `out`, or `data`, where it is all patients.

    Raises:
      InputError: `data` is no prepared folder.
    """
    data = data.resolve()
    if patients is None:
        return data
    described, index = manifest.read_manifest(data), manifest.read_index(data)
    people = list(dict.fromkeys(index["patient_id"].to_numpy()[(index["split"] == split).to_numpy()]))[:patients]
    chosen = np.flatnonzero(index["patient_id"].isin(people))
    out.mkdir()
    for name in (shards.SHARDS, manifest.QUARANTINE):
        (out / name).symlink_to(data / name)
    manifest.replace_index(out, described, index.iloc[chosen])
    manifest.save_manifest(out, described)
    return out


def _compare_reports(folder: Path) -> int:
    ours, theirs = (
        dict(numbers(json.loads(bench_commands.out_of(folder, name).with_suffix(".json").read_text())))
        for name in (bench_commands.WARM, bench_commands.OTHER)
    )
    both = ours.keys() & theirs.keys()
    different = sorted(name for name in both if ours[name] != theirs[name])
    print(f"{len(both) - len(different)} of {len(both)} figures that both reports have are the same to the last digit")
    for name in different:
        print(f"  {name}: {ours[name]!r} here, {theirs[name]!r} there")
    return 1 if different or not both else 0


def numbers(report: Any, name: str = "") -> Iterator[tuple[str, float | None]]:
    """Every number of a report, and None where there is none, by where it stands."""
    if isinstance(report, Mapping):
        children = report.items()
    elif isinstance(report, list):
        children = enumerate(report)
    else:
        children = ()
        if report is None or isinstance(report, int | float):
            yield name, report
    for key, child in children:
        yield from numbers(child, f"{name}/{key}")


if __name__ == "__main__":
    raise SystemExit(main())
