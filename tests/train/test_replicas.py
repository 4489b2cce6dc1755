"""Several seeds in one program: each is the run that it would be by itself."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import patches
import pytest
import runs

from lungjax.data import folds
from lungjax.errors import InputError
from lungjax.preparation.run import prepare
from lungjax.tasks.task import DETAILS, Config
from lungjax.train import checkpoint, loop, mesh, state, step, trained
from lungjax.train import runs as running
from lungjax.train.watch import NotFinite, StopSignal

SEEDS = (3, 4)


@pytest.fixture(scope="module")
def patches_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patches")
    prepare(patches.write(folder / "patches.npz", patients=60), folder / "data", workers=1)
    return folder / "data"


def config_of(name: str, data: Path, **choices: Any) -> Config:
    """Of a short run with augmentation, a moving average and, of a classifier, dropout; of its seed's own patients."""
    if name in ("classify", "diagnose"):
        config = runs.load_config(name)
        config.data.path, config.data.batch_size = str(data), 8
        config.model.encoder.width = config.model.width = config.model.hidden = 8
        assert config.model.dropout > 0
    else:
        config = runs.small_config(name, data)
        config.data.crop_px = 32
    assert config.augment
    config.seed, config.steps, config.log_every, config.eval_every, config.checkpoint_every = SEEDS[0], 4, 2, 4, 2
    config.average_decay = 0.9
    config.data.train_share = 0.6
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in choices.items()})
    return config


def alone(config: Config, seed: int, workdir: Path) -> Path:
    config = config.copy_and_resolve_references()
    config.seed, config.replicas = seed, 1
    assert loop.train_and_evaluate(config, workdir)
    return workdir


def lines(workdir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def distance(one: Any, other: Any) -> float:
    """Of all weights together, relative."""
    pairs = [*zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)]
    assert len(pairs) > 20
    apart = sum(float(np.square(a.astype(float) - b).sum()) for a, b in pairs)
    return float(np.sqrt(apart / sum(float(np.square(b.astype(float)).sum()) for _, b in pairs)))


def assert_same_run(workdir: Path, other: Path) -> None:
    (ours, done), (theirs, done_theirs) = checkpoint.load_best(workdir), checkpoint.load_best(other)
    assert done == done_theirs
    assert distance(ours, theirs) < 1e-5
    mine, reference = lines(workdir), lines(other)
    assert [line["step"] for line in mine] == [line["step"] for line in reference]
    for line, expected in zip(mine, reference, strict=True):
        assert line.keys() == expected.keys()
        for name in ("train/loss", "train/param_norm", "train/learning_rate", "val/loss"):
            if name in expected:
                assert line[name] == pytest.approx(expected[name], rel=1e-4), name


class Noisy:
    """A task whose loss depends on parameters, batch, random numbers and model state."""

    @staticmethod
    def init(rng: Any, batch: Any) -> Any:
        return {"p": jax.random.normal(rng, (3,))}, {"seen": jnp.zeros((), jnp.float32)}

    @staticmethod
    def loss_fn(params: Any, model_state: Any, batch: Any, rng: Any) -> Any:
        loss = jnp.sum((params["p"] - jnp.mean(batch) - jax.random.normal(rng, (3,))) ** 2)
        return loss, ({DETAILS: {"batch": batch}}, {"seen": model_state["seen"] + loss})


@pytest.mark.parametrize("steps", [1, 3])
def test_a_step_of_several_is_that_of_each(steps: int):
    """Figures have the axis of replicas before that of steps; details are those of the last step."""
    task: Any = Noisy
    devices, optimizer = mesh.make_mesh(8), optax.adamw(0.1)
    keys = jax.random.split(jax.random.key(0), 2)
    rng = np.random.default_rng(0)
    batches = rng.normal(size=(steps, 2, 8)).astype(np.float32)
    states = [state.create_state(task, optimizer, key, None, averaged=True) for key in keys]
    alone = []
    for number, key in enumerate(keys):
        train_step = step.make_train_step(task, optimizer, devices, key, average_decay=0.9, steps=steps)
        own = batches[:, number] if steps > 1 else batches[0, number]
        alone.append(train_step(jax.tree.map(jnp.copy, states[number]), own))
    train_step = step.make_train_step(task, optimizer, devices, keys, average_decay=0.9, steps=steps)
    together, figures = train_step(state.stack(states), batches if steps > 1 else batches[0])
    for number, own in enumerate(state.unstack(together, 2)):
        expected, expected_figures = alone[number]
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), own, expected)
        of_one = jax.tree.map(lambda value, at=number: value[at], figures)
        assert of_one["loss"].shape == ((steps,) if steps > 1 else ())
        assert of_one["details"]["batch"].shape == (8,)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), of_one, expected_figures)
    assert not np.allclose(alone[0][0].params["p"], alone[1][0].params["p"], rtol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["segment", pytest.param("classify", marks=pytest.mark.exhaustive)])
def test_each_replica_is_the_run_of_its_seed(slices_dataset: Path, patches_dataset: Path, tmp_path: Path, name: str):
    config = config_of(name, slices_dataset if name == "segment" else patches_dataset, replicas=len(SEEDS))
    together = tmp_path / "together"
    assert loop.train_and_evaluate(config, together)
    for seed in SEEDS:
        other = alone(config, seed, tmp_path / f"alone-{seed}")
        assert_same_run(together / f"seed-{seed}", other)
        names = [{str(file.relative_to(at)) for file in at.rglob("*.*g")} for at in (together / f"seed-{seed}", other)]
        assert names[0] == names[1] > {"examples/0000004.png"}
    a, b = (checkpoint.load_best(together / f"seed-{seed}")[0] for seed in SEEDS)
    assert distance(a, b) > 0.1
    model = trained.open_trained(together / f"seed-{SEEDS[1]}")
    assert (model.config.seed, model.config.replicas, model.step) == (SEEDS[1], 1, config.steps)
    assert model.calibration


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("segment", {"data__placement": "device", "steps_per_dispatch": 2}),
        ("simclr", {"data__placement": "device", "steps_per_dispatch": 2}),
        ("segment", {"accumulate": 2, "data__batch_size": 16, "remat": True}),
        ("segment", {"model__encoder__norm": "batch"}),
        ("simclr", {"positives": "neighbours"}),
        ("diagnose", {"data__nodules": 2}),
        ("segment", {"targets": "random", "optimizer__name": "lars"}),
    ],
)
def test_with_other_choices(
    slices_dataset: Path, patches_dataset: Path, tmp_path: Path, name: str, choices: dict[str, Any]
):
    data = patches_dataset if name == "diagnose" else slices_dataset
    config = config_of(name, data, replicas=2, **choices)
    assert loop.train_and_evaluate(config, tmp_path / "together")
    assert_same_run(tmp_path / "together" / "seed-4", alone(config, 4, tmp_path / "alone"))


@pytest.mark.slow
@pytest.mark.parametrize("placement", [pytest.param("host", marks=pytest.mark.exhaustive), "device"])
def test_folds_that_start_from_other_networks(patches_dataset: Path, tmp_path: Path, placement: str):
    """Each on its own patients, though the pixels of all lie on the device once."""
    of_folds = [folds.write(patches_dataset, tmp_path / f"data-{fold}", fold=fold, folds=2) for fold in range(2)]
    encoder = alone(config_of("classify", of_folds[1], steps=1), 7, tmp_path / "encoder")
    config = config_of("classify", patches_dataset, data__placement=placement)
    planned = []
    for fold, (data, start) in enumerate(zip(of_folds, ("", str(encoder)), strict=True)):
        planned.append((running.alone(config, {"data.path": str(data), "init_from": start}), tmp_path / f"run-{fold}"))
    assert loop.train_together(planned)
    learnt = []
    for fold, (own, workdir) in enumerate(planned):
        assert_same_run(workdir, alone(own, own.seed, tmp_path / f"alone-{fold}"))
        learnt.append({name for name, split in trained.open_trained(workdir).patients.items() if split == "train"})
    assert learnt[0] != learnt[1]


def stored(workdir: Path) -> list[set[int]]:
    return [checkpoint.stored_steps(workdir / f"seed-{seed}") for seed in SEEDS]


@pytest.mark.slow
def test_killed_replicas_go_on_together(slices_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Bit for bit, also where the checkpoint of one was not yet complete; and a replica goes on alone."""
    config = config_of("segment", slices_dataset, replicas=2, checkpoint_every=1, keep_checkpoints=1, log_every=1)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert loop.train_and_evaluate(config, whole)

    def killed_at(last: int) -> None:
        def kill(_: StopSignal, done: int) -> bool:
            if done == last:
                raise KeyboardInterrupt
            return False

        with monkeypatch.context() as killed:
            killed.setattr(StopSignal, "reached", kill)
            with pytest.raises(KeyboardInterrupt):
                loop.train_and_evaluate(config, broken)

    def lose(seed: int, done: int) -> None:
        shutil.rmtree(broken / f"seed-{seed}" / checkpoint.FOLDER / str(done))

    killed_at(2)
    assert stored(broken) == [{1}, {1}]
    lose(SEEDS[1], 1)  # Killed while the first checkpoints were written: they start again.
    killed_at(3)
    assert stored(broken) == [{1, 2}, {1, 2}]  # Two at least, or a kill could leave none in common.
    lose(SEEDS[0], 2)
    assert loop.train_and_evaluate(config, broken)
    for seed in SEEDS:
        ours, theirs = (checkpoint.load_best(at / f"seed-{seed}") for at in (broken, whole))
        assert ours[1] == theirs[1] == config.steps
        jax.tree.map(np.testing.assert_array_equal, ours[0], theirs[0])
        assert [line["step"] for line in lines(broken / f"seed-{seed}")] == [1, 2, 3, 4, 4]
    assert stored(broken) == stored(whole)

    lose(SEEDS[0], 4)
    own = running.alone(config, {"seed": SEEDS[0]})
    assert loop.train_and_evaluate(own, broken / f"seed-{SEEDS[0]}")
    again, theirs = (checkpoint.load_best(at / f"seed-{SEEDS[0]}")[0] for at in (broken, whole))
    assert distance(again, theirs) < 1e-5


@pytest.mark.exhaustive
def test_a_sigkill_changes_nothing(slices_dataset: Path, tmp_path: Path):
    env, length = runs.environment(), ("--config.steps=12", "--config.eval_every=12", "--config.checkpoint_every=3")
    extra = (*length, "--config.replicas=2")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = runs.run(runs.command("segment.py:quick", whole, slices_dataset, *extra), env)
    assert done.returncode == 0, done.stderr
    broken.mkdir()
    args = runs.command("segment.py:quick", broken, slices_dataset, *extra)
    for killed_at in (4, 8):
        assert runs.run_until(args, env, broken / "seed-1", killed_at, signal.SIGKILL) == -signal.SIGKILL
    assert runs.run(args, env).returncode == 0
    for name in ("seed-0", "seed-1"):
        (ours, _), (theirs, _) = (checkpoint.load_best(at / name) for at in (broken, whole))
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)  # bit for bit
        assert runs.logged_steps(broken / name) == [*range(1, 13), 12]  # The last line is of validation.


@pytest.mark.slow
def test_a_loss_that_is_not_finite_is_told_of_its_replica(slices_dataset: Path, tmp_path: Path):
    config = config_of("segment", slices_dataset, replicas=2)
    config.optimizer.learning_rate, config.optimizer.warmup = 1e38, 0.0
    with pytest.raises(NotFinite, match=r"its batch is saved in .*seed-3.not-finite"):
        loop.train_and_evaluate(config, tmp_path)
    with np.load(next(tmp_path.glob("seed-*/not-finite-*.npz"))) as batch:
        assert batch["image"].shape == (8, 32, 32)


@pytest.mark.parametrize(
    ("choices", "sentence"),
    [
        ({"replicas": 2, "mesh.parameters": "sharded"}, "2 replicas .* but config.mesh.parameters is 'sharded'"),
        ({"replicas": 2, "seed": 2**32 - 1}, "config.seed of the last replica is 4294967296; it must be at most"),
        ({"replicas": -1}, r"config\.replicas is -1; it must be at least 0"),
        ({"replicas": 10**9}, "for each of 1000000000 replicas take .* GiB"),
    ],
)
def test_what_cannot_be_is_refused_without_data(tmp_path: Path, choices: dict[str, Any], sentence: str):
    config = runs.small_config("segment", tmp_path / "none")
    config.update_from_flattened_dict(choices)
    with pytest.raises(InputError, match=sentence):
        loop.check_config(config)


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = runs.small_config("segment", tmp_path / "none")
    config.replicas = 2
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(InputError, match="replicas share one process: start it without --coordinator"):
        loop.check_config(config)


def test_a_workdir_is_of_one_run_or_of_replicas(tmp_path: Path):
    config = runs.small_config("segment", tmp_path / "none")
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "config.json").touch()
    (tmp_path / "many" / "seed-0").mkdir(parents=True)
    (tmp_path / "many" / "seed-0" / "config.json").touch()
    for replicas in (0, 1):
        config.replicas = replicas
        assert running.replicas(config, tmp_path / "one") == [(config, tmp_path / "one")]
        with pytest.raises(InputError, match=r"replicas were started in it; .* its workdir is .*seed-0"):
            running.replicas(config, tmp_path / "many")
    config.replicas, config.seed = 2, 8
    with pytest.raises(InputError, match="a run without replicas was started in it"):
        running.replicas(config, tmp_path / "one")
    planned = running.replicas(config, tmp_path / "many")
    assert [(own.seed, own.replicas, at.name) for own, at in planned] == [(8, 1, "seed-8"), (9, 1, "seed-9")]


def test_runs_of_other_programs_are_not_trained_together(tmp_path: Path):
    config = runs.small_config("segment", tmp_path / "none")
    own = {"seed": 1, "data.path": "b", "data.train_share": 0.5, "init_from": "c"}
    running.check_same_program([config, running.alone(config, own)])
    with pytest.raises(InputError, match=r"config\.dice_weight is 1.0 in one run and 0.5 in another"):
        running.check_same_program([config, running.alone(config, {"dice_weight": 0.5})])


@pytest.mark.parametrize(
    ("steps", "common", "groups"),
    [
        ([set(), set()], None, [2]),
        ([{10, 20}, {10, 20}], 20, [2]),
        ([{10, 20}, {10}], 10, [2]),
        ([{20, 40, 50}, {30, 40}, {40, 50}], 40, [3]),
        ([{10}, set()], None, [2]),  # Killed while the first ones were written.
        ([{10, 20}, set()], InputError, [1, 1]),
        ([{10, 20}, {30, 40}, {30, 40}], InputError, [1, 2]),
    ],
)
def test_where_runs_go_on_together(tmp_path: Path, steps: list[set[int]], common: Any, groups: list[int]):
    planned: list[Any] = []
    for number, own in enumerate(steps):
        planned.append((None, tmp_path / str(number)))
        for done in own:
            (tmp_path / str(number) / checkpoint.FOLDER / str(done)).mkdir(parents=True)
        (tmp_path / str(number)).mkdir(exist_ok=True)
        (tmp_path / str(number) / "config.json").touch()
    workdirs = [workdir for _, workdir in planned]
    if common is InputError:
        with pytest.raises(InputError, match=r"no checkpoint of the same step: .*0 at 20, "):
            running.last_common_step(workdirs)
    else:
        assert running.last_common_step(workdirs) == common
    assert [len(group) for group in running.in_groups(planned)] == groups
    assert running.in_groups([]) == []


def test_new_replicas_do_not_join_finished_ones(tmp_path: Path):
    (tmp_path / "old" / checkpoint.FOLDER / "10").mkdir(parents=True)
    (tmp_path / "old" / "config.json").touch()
    with pytest.raises(InputError, match=r"old at 10, .*new at 0; go on with each by itself"):
        running.last_common_step([tmp_path / "old", tmp_path / "new"])
