"""What the loop promises: no recompilation, no hidden transfers, locks, and one clear sentence for a mistake."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import runs

from lungjax.data import shards, splits
from lungjax.errors import InputError
from lungjax.train import checkpoint, evals, loop, mesh, probe, profile, step
from lungjax.train.watch import NotFinite, StopSignal


def short(name: str, data: Path):
    config = runs.small_config(name, data)
    config.steps = 6
    config.log_every = 2
    config.eval_every = 3
    config.checkpoint_every = 3
    return config


@pytest.fixture(scope="module")
def simclr_run(slices_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("simclr")
    assert loop.train_and_evaluate(short("simclr", slices_dataset), workdir)
    return workdir


def test_a_run_leaves_what_a_user_looks_for(simclr_run: Path):
    names = {str(p.relative_to(simclr_run)) for p in simclr_run.rglob("*") if p.is_file()}
    assert {"config.json", "split.json", "metrics.jsonl", "plots/loss.png", "plots/accuracy.png"} <= names
    assert {"examples/0000003.png", "examples/0000006.png"} <= names
    assert any(name.startswith("tensorboard/") for name in names)
    lines = [json.loads(line) for line in (simclr_run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/loss" in line] == [2, 4, 6]
    assert [line["step"] for line in lines if "val/loss" in line] == [3, 6]
    for name in ("alignment", "uniformity", "effective_rank", "accuracy"):
        assert np.isfinite(lines[-1][f"val/{name}"])
    for name in ("grad_norm", "update_norm", "param_norm", "learning_rate", "effective_rank"):
        assert all(line[f"train/{name}"] > 0 for line in lines if "train/loss" in line)
    events = b"".join(path.read_bytes() for path in (simclr_run / "tensorboard").iterdir())
    assert b"train/update_norm" in events


def test_the_learning_rate_is_that_of_the_step(simclr_run: Path, slices_dataset: Path):
    lines = [json.loads(line) for line in (simclr_run / "metrics.jsonl").read_text().splitlines()]
    config = short("simclr", slices_dataset)
    schedule = step.make_schedule(config.optimizer, config.steps)
    rates = {line["step"]: line["train/learning_rate"] for line in lines if "train/loss" in line}
    with jax.numpy_dtype_promotion("standard"):
        assert rates == pytest.approx({done: np.asarray(schedule(done - 1)).item() for done in (2, 4, 6)})
    assert len({*rates.values()}) == 3


def test_pretraining_decomposes_on_logged_steps_only_and_ships_no_marks(
    slices_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    programs, calls, shipped = [], [], set()
    make, make_detail, to_devices = step.make_train_step, step.make_detail_step, mesh.to_devices

    def detailed(*args: Any, **more: Any) -> Any:
        detail_step = make_detail(*args, **more)

        def call(details: Any) -> Any:
            calls.append(detail_step.lower(details).as_text())  # pyright: ignore[reportFunctionMemberAccess]
            return detail_step(details)

        return call

    def stepped(*args: Any, **more: Any) -> Any:
        train_step = make(*args, **more)

        def call(*inputs: Any) -> Any:
            programs.append(train_step.lower(*inputs).as_text())  # pyright: ignore[reportFunctionMemberAccess]
            return train_step(*inputs)

        return call

    monkeypatch.setattr(step, "make_detail_step", detailed)
    monkeypatch.setattr(step, "make_train_step", stepped)
    monkeypatch.setattr(
        mesh, "to_devices", lambda batch, *args, **more: (shipped.update(batch), to_devices(batch, *args, **more))[1]
    )
    config = short("simclr", slices_dataset)
    config.steps, config.log_every, config.data.crop_at = 5, 2, "nodule"
    assert loop.train_and_evaluate(config, tmp_path)
    assert len(programs) == 5
    assert len(calls) == 3  # Steps 2, 4 and 5.
    assert all("gesdd" in text or "svd" in text.lower() for text in calls)
    assert not any("gesdd" in text or "svd" in text.lower() for text in programs)
    assert "image" in shipped
    assert "readers" not in shipped


@pytest.mark.slow
def test_steps_are_profiled(slices_dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture):
    config = short("segment", slices_dataset)
    assert loop.train_and_evaluate(config, tmp_path, profile_steps=range(2, 4))
    (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
    assert b"train_step" in trace.read_bytes()
    assert f"{tmp_path / 'profile'} has the trace" in capfd.readouterr().err
    config.steps = 6
    checkpoints = tmp_path / "again"
    assert loop.train_and_evaluate(config, checkpoints)
    assert not (checkpoints / "profile").exists()
    assert loop.train_and_evaluate(config, checkpoints, profile_steps=range(2, 4))
    assert "nothing is traced: step 3 is done already" in capfd.readouterr().err
    assert not (checkpoints / "profile").exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("20", "it must be FROM:TO"),
        ("0:3", "it must be FROM:TO"),
        ("5:3", "it must be FROM:TO"),
        ("a:b", "it must be FROM:TO"),
        ("5:11", "the run has 10 steps"),
    ],
)
def test_profiled_steps_are_two_numbers_of_the_run(text: str, sentence: str):
    with pytest.raises(InputError, match=sentence):
        profile.parse_steps(text, steps=10)
    assert profile.parse_steps("4:10", steps=10) == range(4, 11)


@pytest.mark.parametrize("name", ["segment", "simclr"])
def test_nothing_compiles_after_step_one(
    slices_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    made: dict[str, list[Any]] = {"train": [], "eval": [], "predict": []}
    made |= {"features": [], "detail": []} if name == "simclr" else {}
    for kind, steps in made.items():
        original = getattr(step, f"make_{kind}_step")
        spy = functools.partial(
            lambda kept, make, *args, **more: kept.append(make(*args, **more)) or kept[-1], steps, original
        )
        monkeypatch.setattr(step, f"make_{kind}_step", spy)
    monkeypatch.setattr(probe, "_questions", lambda sides: ({"even": [np.arange(len(s)) % 2 for s in sides]}, ""))
    # Transfer guard "disallow" is on around the step: a hidden transfer to the device raises there.
    assert loop.train_and_evaluate(short(name, slices_dataset), tmp_path)
    # Six steps and two validations: each program is compiled for the first batch, and for no other.
    assert {kind: [one._cache_size() for one in steps] for kind, steps in made.items()} == {kind: [1] for kind in made}


def test_segment_starts_from_the_encoder(
    simclr_run: Path,
    slices_dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
):
    config = short("segment", slices_dataset)
    config.init_from = str(simclr_run)
    with monkeypatch.context() as stopped:
        stopped.setattr(StopSignal, "reached", lambda _, done: done == 1)
        assert not loop.train_and_evaluate(config, tmp_path)
    said = capfd.readouterr().err
    assert "arrays of the encoder loaded" in said
    from lungjax.train import checkpoint

    theirs, ours = checkpoint.load_best(simclr_run)[0], checkpoint.load_best(tmp_path)[0]
    loaded = jax.tree.leaves(theirs["params"]["encoder"])
    kept = jax.tree.leaves(ours["params"]["encoder"])
    assert len(loaded) == len(kept) > 20
    for a, b in zip(loaded, kept, strict=True):
        np.testing.assert_array_equal(a, b)  # The warm-up's first step has a learning rate of zero.
    assert checkpoint.has_checkpoint(tmp_path)
    (tmp_path / "ahead" / "checkpoints" / "3.orbax-checkpoint-tmp-1").mkdir(parents=True)
    assert not checkpoint.has_checkpoint(tmp_path / "ahead")  # Begun, or of a process that is ahead.
    assert not checkpoint.has_checkpoint(tmp_path / "nothing")
    monkeypatch.setattr(loop.trained, "open_encoder", None)  # A run that goes on does without it.
    assert loop.train_and_evaluate(config, tmp_path)


def test_another_width_is_refused_by_name(simclr_run: Path, slices_dataset: Path, tmp_path: Path):
    config = short("segment", slices_dataset)
    config.init_from = str(simclr_run)
    config.model.encoder.width = 16
    with pytest.raises(InputError, match=r"encoder.* has shape .* there, .* here"):
        loop.train_and_evaluate(config, tmp_path)
    assert list(tmp_path.iterdir()) == []  # Not even Orbax's folder, which a thread would still look through.


def test_the_leak_lock(simclr_run: Path, slices_dataset: Path, tmp_path: Path):
    """Data in which one patient changed its split is refused, by a new run from the encoder and by the run itself."""
    moved = dict(shards.open_dataset(slices_dataset).manifest["split"]["patients"])
    patient = next(p for p, s in moved.items() if s == "train")
    moved[patient] = "test"
    from lungjax.train import workdir
    from lungjax.train.trained import open_trained

    with pytest.raises(InputError, match=f"1 patients are in another split.*{patient}, now test, then train"):
        splits.lock(open_trained(simclr_run).patients, moved, where="DATA")
    config = short("simclr", slices_dataset)
    with pytest.raises(InputError, match="another split"):
        workdir.check_begun(simclr_run, config, moved)
    del moved[patient]
    with pytest.raises(InputError, match="was started with other patients"):
        workdir.check_begun(simclr_run, config, moved)
    assert splits.digest(moved) != json.loads((simclr_run / "split.json").read_text())["digest"]


def test_a_workdir_keeps_its_configuration(simclr_run: Path, slices_dataset: Path):
    config = short("simclr", slices_dataset)
    config.seed = 1
    with pytest.raises(InputError, match=r"was started with another config\.seed \(0\)"):
        loop.train_and_evaluate(config, simclr_run)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("steps", 0, r"config\.steps is 0; it must be at least 1"),
        ("data.workers", -1, r"config\.data\.workers is -1"),
        ("data.crop_px", 50, "The image is 50x50 px; both must be multiples of"),
        ("model.encoder.norm", "foo", "norm is 'foo'; use 'group' or 'batch'"),
        ("compute_dtype", "float99", "float99"),
        ("targets", "foo", r"config\.targets is 'foo'; use one of majority, soft, random"),
        ("average_decay", 1.0, r"config\.average_decay is 1\.0; it must be below 1"),
        ("data.train_share", 0.0, r"config\.data\.train_share is 0\.0; it must be above 0"),
        ("init_from", "/nowhere", "/nowhere: neither a run's workdir nor an exported folder"),
    ],
)
def test_a_mistaken_run_leaves_its_workdir_to_the_right_one(
    slices_dataset: Path, tmp_path: Path, key: str, value: object, sentence: str
):
    config = short("segment", slices_dataset)
    config.update_from_flattened_dict({key: value})
    with pytest.raises(InputError, match=sentence):
        loop.train_and_evaluate(config, tmp_path)
    assert list(tmp_path.iterdir()) == []
    if key == "init_from":
        assert loop.train_and_evaluate(short("segment", slices_dataset), tmp_path)


def test_a_loss_that_is_not_finite_ends_the_run(slices_dataset: Path, tmp_path: Path):
    config = short("segment", slices_dataset)
    config.optimizer.learning_rate = 1e38
    config.optimizer.warmup = 0.0
    with pytest.raises(NotFinite, match=r"the loss is (nan|inf) at step \d+; its batch is saved in .*not-finite"):
        loop.train_and_evaluate(config, tmp_path)
    saved = next(tmp_path.glob("not-finite-*.npz"))
    with np.load(saved) as batch:
        assert batch["image"].shape == (8, 64, 64)


def test_a_batch_the_devices_cannot_share(slices_dataset: Path, tmp_path: Path):
    config = short("segment", slices_dataset)
    config.data.batch_size = 6
    with pytest.raises(InputError, match="batch_size 6 is not a multiple of the 8 devices"):
        loop.train_and_evaluate(config, tmp_path)
    assert not list(tmp_path.iterdir())


def stored(workdir: Path) -> set[str]:
    return {path.name for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal()}


@pytest.mark.parametrize("broken_at", [5, *(pytest.param(step, marks=pytest.mark.exhaustive) for step in (None, 7))])
def test_every_best_state_is_stored_also_between_checkpoints(
    slices_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_at: int | None
):
    """Checkpoints are due at 4 and 8; the best state is that of step 6, and no later or worse one takes its place."""
    config = short("segment", slices_dataset)
    config.steps, config.eval_every, config.checkpoint_every, config.keep_checkpoints = 8, 1, 4, 8
    dice = {1: 0.1, 2: 0.3, 3: 0.2, 4: 0.2, 5: 0.3, 6: 0.5, 7: 0.4, 8: 0.4}
    monkeypatch.setattr(evals.Validation, "scores", lambda self, state: {"dice": dice[int(state.step)]})
    monkeypatch.setattr(evals.Validation, "draw", lambda *_: None)
    whole, workdir = tmp_path / "whole", tmp_path / "run"
    assert loop.train_and_evaluate(config, whole)
    assert stored(whole) == {"1", "2", "4", "6", "8"}
    variables, step_number = checkpoint.load_best(whole)
    assert step_number == 6
    if broken_at is None:  # With room for one only, the best stays beside the last.
        config.keep_checkpoints = 1
        assert loop.train_and_evaluate(config, workdir)
        assert stored(workdir) == {"6", "8"}
    else:  # Killed in step `broken_at`: it goes on from the last state stored before, and knows which is the best.
        with monkeypatch.context() as killed:
            killed.setattr(StopSignal, "reached", lambda _, done: kill(done == broken_at))
            with pytest.raises(KeyboardInterrupt):
                loop.train_and_evaluate(config, workdir)
        before = {str(number) for number in (1, 2, 4, 6) if number < broken_at}
        assert stored(workdir) == before
        assert loop.train_and_evaluate(config, workdir)
        assert stored(workdir) == stored(whole)
    again, step_number = checkpoint.load_best(workdir)
    assert step_number == 6
    jax.tree.map(np.testing.assert_array_equal, again, variables)  # bit for bit


def kill(now: bool) -> bool:
    if now:
        raise KeyboardInterrupt
    return False


@pytest.mark.slow
def test_pairs_of_neighbours(slices_dataset: Path, tmp_path: Path):
    config = short("simclr", slices_dataset)
    config.steps, config.positives = 2, "slices"
    with pytest.raises(InputError, match=r"config\.positives is 'slices'; use one of views, neighbours"):
        loop.train_and_evaluate(config, tmp_path)
    losses = []
    for positives in ("views", "neighbours"):
        config.positives = positives
        assert loop.train_and_evaluate(config, tmp_path / positives)
        lines = (tmp_path / positives / "metrics.jsonl").read_text().splitlines()
        losses.append([line["train/loss"] for line in map(json.loads, lines) if "train/loss" in line])
    assert losses[0] != losses[1]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            ["--config.optimizer.lerning_rate=1"],
            "no such key; did you mean config.optimizer.learning_rate?",
        ),
        (["--config.optimizer.foo=1"], "optimizer.foo: there is no such key; see the configuration's file"),
        (
            ["--config=configs/nope.py"],
            "no file configs/nope.py; use one of classify, diagnose, segment, sift, simclr",
        ),
        (["--config=configs/segment.py:typo"], "there is no variant 'typo'; use one of full, quick, slices"),
        (["--config.data.path=/nowhere"], "/nowhere"),
        (["--config.task=sing"], "'sing'; use one of pretrain, segment"),
    ],
)
def test_mistakes_get_one_sentence(tmp_path: Path, flags: list[str], sentence: str):
    args = [*runs.command("segment.py:quick", tmp_path / "run", tmp_path / "none"), *flags]
    done = runs.run(args, runs.environment())
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert sentence in done.stderr.strip().splitlines()[-1]


def test_to_devices_splits_the_batch():
    devices = mesh.make_mesh(16)
    out = mesh.to_devices({"x": np.arange(16.0, dtype=np.float32)}, devices)
    assert [shard.data.shape for shard in out["x"].addressable_shards] == [(2,)] * 8
    np.testing.assert_array_equal(out["x"], np.arange(16))
