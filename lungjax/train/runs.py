"""Runs, several of which can be trained together in one program: what each has of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from lungjax.data import bags, extent, loader, manifest, neighbours, on_device, shards, splits
from lungjax.errors import InputError
from lungjax.tasks.task import Config
from lungjax.train import checkpoint, config_checks
from lungjax.train import workdir as folder

Planned = tuple[Config, Path]
"""The configuration and the workdir of a run."""
OWN = frozenset({"seed", "data.path", "data.train_share", "init_from"})
"""What runs of one program may differ in: their numbers, but not how they are computed."""


def replicas(config: Config, workdir: Path) -> list[Planned]:
    """The runs of a command: one in `workdir`; or, of `config.replicas`, one for each seed, in `workdir/seed-N`.

    Raises:
      InputError: the workdir was begun as the other of these.
    """
    count = config.get("replicas", 1)
    begun = sorted(path.parent.name for path in workdir.glob(f"seed-*/{folder.CONFIG_FILE}"))
    if count > 1 and (workdir / folder.CONFIG_FILE).exists():
        raise InputError(f"{workdir}: a run without replicas was started in it; choose a new --workdir.")
    if count <= 1 and begun:
        raise InputError(
            f"{workdir}: replicas were started in it; set config.replicas, or go on with one alone: its workdir is "
            f"{workdir / begun[0]}."
        )
    if count <= 1:
        return [(config, workdir)]
    return [
        (alone(config, {"seed": seed}), workdir / f"seed-{seed}") for seed in range(config.seed, config.seed + count)
    ]


def alone(config: Config, changes: Mapping[str, Any]) -> Config:
    """The configuration of one run: `config` with `changes`, values by names such as `data.path`."""
    lone = config.copy_and_resolve_references()
    lone.update_from_flattened_dict({**({"replicas": 1} if "replicas" in lone else {}), **changes})
    return lone


def program(config: Config) -> dict[str, Any]:
    """What decides how a run is computed: the values of its configuration by name, without `OWN`."""
    return {name: value for name, value in config_checks.leaves(config.to_dict()) if name not in OWN}


def check_same_program(configs: Sequence[Config]) -> None:
    """Raises InputError where configurations differ in more than `OWN`."""
    first, *others = map(program, configs)
    for other in others:
        for name in sorted(first.keys() | other.keys()):
            if first.get(name) != other.get(name):
                raise InputError(
                    f"config.{name} is {first.get(name)} in one run and {other.get(name)} in another; such runs cannot "
                    "be trained together."
                )


def last_common_step(workdirs: Sequence[Path]) -> int | None:
    """The step from which runs go on together; None where they are new.

    Raises:
      InputError: some are ahead, and have no checkpoint of a step that all have.
    """
    stored = [checkpoint.stored_steps(workdir) for workdir in workdirs]
    common, all_steps = set.intersection(*stored), set.union(*stored)
    if common or not all_steps:
        return max(common, default=None)
    if len(all_steps) == 1 and all((workdir / folder.CONFIG_FILE).exists() for workdir in workdirs):
        return None  # They were killed when some had written their first checkpoint, and start again.
    steps = [f"{workdir} at {max(own, default=0)}" for workdir, own in zip(workdirs, stored, strict=True)]
    raise InputError(
        f"these runs cannot go on together, for they have no checkpoint of the same step: {', '.join(steps)}; go on "
        "with each by itself, or choose a new --workdir."
    )


def in_groups(planned: Sequence[Planned]) -> list[list[Planned]]:
    """All runs as one group, if they can go on together; otherwise in groups of those that have come equally far."""
    if not planned:
        return []
    try:
        last_common_step([workdir for _, workdir in planned])
        return [[*planned]]
    except InputError:
        groups: dict[int, list[Planned]] = {}
        for config, workdir in planned:
            groups.setdefault(max(checkpoint.stored_steps(workdir), default=0), []).append((config, workdir))
        return [*groups.values()]


class Run:
    """A run, and its data.

    Args:
      config, workdir: of the run. Every task, pretraining too, trains on the train patients only.

    Attributes:
      key: of its random numbers.
      dataset: that of `config.data.path`, which is validated on.
      mixture: the data sets of `config.data.parts`, if there are some, which are then trained on.
      slices: reads the batches of `dataset`.
      train_on: reads those to train on.
      train_rows, val_rows: the slices, nodules or patients.
      patients: the split of each patient of all these data.
      identities: of the data sets, by the name of their paths in the configuration.
    """

    def __init__(self, config: Config, workdir: Path):
        self.config = config
        self.workdir = workdir
        self.key = jax.random.key(config.seed)
        self.dataset = shards.open_dataset(Path(config.data.path))
        self.mixture = bags.make_mixture(config.data, task=config.task)
        self.patients = splits.joined(
            self.dataset.manifest["split"]["patients"],
            self.mixture.patients if self.mixture else {},
            where=config.data.path,
        )
        self.slices = bags.make_reader(self.dataset, config.data, task=config.task)
        self.train_on = self.mixture or self.slices
        self.train_rows = self.train_on.rows(
            split="train", slices=config.data.slices, share=config.data.train_share, seed=config.seed
        )
        self.val_rows = self.slices.rows(split="val", slices=config.data.slices)
        self._near = None
        if config.get("positives") == "neighbours":
            self._near = neighbours.Neighbours(self.dataset, self.train_rows, within_mm=config.neighbour_mm)
        self.identities = {"data.path": manifest.identity(self.dataset.manifest)}
        for part in self.mixture.parts if self.mixture else ():
            self.identities[f"data.parts.{part.name}.path"] = manifest.identity(part.slices.dataset.manifest)

    def batches(self, *, start: int, placed: on_device.OnDevice | None) -> loader.Stream:
        """Its train batches from number `start` on; as plans where the pixels are `placed` on the devices."""
        return loader.train_batches(
            self.train_on,
            self.train_rows,
            batch_size=self.config.data.batch_size,
            seed=self.config.seed,
            workers=0 if placed else self.config.data.workers,  # A plan is made in no time.
            start=start,
            read=placed.plan if placed else None,
            neighbours=self._near,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def check_begun(self) -> None:
        """Raises InputError where the workdir was started with another configuration or other patients."""
        folder.check_begun(self.workdir, self.config, self.patients, data=self.identities)

    def record(self) -> None:
        """Stores what `check_begun` compares."""
        seen = extent.spacing_extent(self.train_on.index, self.train_on.index_rows(self.train_rows))
        folder.record_run(
            self.workdir,
            self.config,
            self.patients,
            intensity=self.train_on.intensity,
            seen=seen,
            data=self.identities,
        )


def check_same_arrays(runs: Sequence[Run]) -> None:
    """Raises InputError where the batches of runs that are trained together would not have the same shapes."""
    kinds = [_kinds(run) for run in runs] if len(runs) > 1 else []
    for run, kind in zip(runs, kinds, strict=False):
        if kind != kinds[0]:
            raise InputError(
                f"{runs[0].config.data.path} and {run.config.data.path}: images, readers or intensities differ; such "
                "runs cannot be trained together."
            )


def _kinds(run: Run) -> Any:
    batches = (run.slices.batch(run.val_rows[:1]), run.train_on.batch(run.train_rows[:1]))
    shapes = [{name: (part.shape, str(part.dtype)) for name, part in batch.items()} for batch in batches]
    return shapes, run.dataset.intensity, run.dataset.readers, run.train_on.intensity


def place(runs: Sequence[Run], *, put: Callable[[Any], Any], devices: Sequence[Any]) -> on_device.OnDevice:
    """The pixels of all runs' train slices on the devices, each slice once; see `lungjax.data.on_device`.

    Raises:
      InputError: the runs read different images; folds of one data set read the same.
    """
    first = runs[0]
    for run in runs:
        if first.mixture is None and not _same_images(first.dataset, run.dataset):
            raise InputError(
                f"config.data.placement is 'device', but {first.config.data.path} and {run.config.data.path} have "
                "different images; set config.data.placement='host', or train these runs by themselves."
            )
    rows = functools.reduce(np.union1d, [run.train_rows for run in runs])
    return on_device.OnDevice(first.train_on, rows, put=put, devices=devices)


def _same_images(one: shards.Dataset, other: shards.Dataset) -> bool:
    """Whether each row of both has the same image: their files with pixels are the same, as are their rows' places."""
    places = ["shard", "position"]
    files = [
        {name: file["sha256"] for name, file in data.manifest["files"].items() if name.endswith(shards.SUFFIX)}
        for data in (one, other)
    ]
    return files[0] == files[1] and one.index[places].equals(other.index[places])
