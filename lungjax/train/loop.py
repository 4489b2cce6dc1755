"""The training loop, the same for every task. Read it from top to bottom."""

from __future__ import annotations

import contextlib
import functools
import time
from pathlib import Path

import jax
import numpy as np

from lungjax.data import bags, extent, loader, manifest, neighbours, on_device, shards, splits
from lungjax.data.context import Context
from lungjax.errors import InputError
from lungjax.tasks import accumulation, kinds
from lungjax.tasks.kinds import TASKS
from lungjax.tasks.task import DETAILS, Config
from lungjax.train import calibrate, checkpoint, config_checks, logs, mesh, state, step, trained, transfer
from lungjax.train import workdir as folder
from lungjax.train.checkpoint import Checkpoints
from lungjax.train.evals import Validation
from lungjax.train.profile import Profile
from lungjax.train.watch import StopSignal, Window


def check_config(config: Config) -> None:
    """Checks all of a configuration that can be checked without data.

    Raises:
      InputError: a value is out of range or unknown, no network can be made of them, or a batch fits no memory.
    """
    if config.task not in TASKS:
        raise InputError(f"config.task is {config.task!r}; use one of {', '.join(TASKS)}.")
    config_checks.check(config)
    config_checks.check_memory(loader.crop_bytes(config.data), config, processes=jax.process_count())
    accumulation.check(config, devices=jax.device_count())
    with folder.config_mistakes():
        step.make_optimizer(config.optimizer, config.steps)
        kinds.trace_init(config, mesh.make_mesh(config.data.batch_size))


def steps_at_once(config: Config, done: int) -> int:
    """How many steps are dispatched together after `done` steps: `config.steps_per_dispatch`, or one where the host is
    to log, validate, save or end before."""
    several = config.get("steps_per_dispatch", 1)
    due = [every - done % every for every in (config.log_every, config.eval_every, config.checkpoint_every)]
    return several if several <= min(*due, config.steps - done) else 1


def train_and_evaluate(config: Config, workdir: Path, *, profile_steps: range = range(0)) -> bool:
    """Trains up to `config.steps`, resuming from the latest checkpoint in `workdir` if there is one.

    Args:
      config, workdir: of the run.
      profile_steps: steps to trace, see `lungjax.train.profile`.

    Returns:
      True when the run is complete, False when SIGTERM or Ctrl-C stopped it after saving.

    Raises:
      InputError: the configuration, data or workdir cannot be used.
      NotFinite: the loss became NaN or infinite; its batch is saved in the workdir.
    """
    # 1. The configuration, the data and its split of patients, the devices.
    check_config(config)
    dataset = shards.open_dataset(Path(config.data.path))
    mixed = bags.make_mixture(config.data, task=config.task)
    patients = splits.joined(
        dataset.manifest["split"]["patients"], mixed.patients if mixed else {}, where=config.data.path
    )
    devices = mesh.make_mesh(config.data.batch_size)

    # 2. Data: every task, pretraining too, trains on the train patients only; of several data sets if there are parts.
    slices = bags.make_reader(dataset, config.data, task=config.task)
    train_on = mixed or slices
    train_rows = train_on.rows(
        split="train", slices=config.data.slices, share=config.data.train_share, seed=config.seed
    )
    val_rows = slices.rows(split="val", slices=config.data.slices)
    near = None
    if config.get("positives") == "neighbours":
        near = neighbours.Neighbours(dataset, train_rows, within_mm=config.neighbour_mm)
    placed = None
    if config.data.get("placement") == "device":
        put = functools.partial(mesh.to_every_device, mesh=devices)
        placed = on_device.OnDevice(train_on, train_rows, put=put, devices=devices.local_devices)
    batches_from = functools.partial(
        loader.train_batches,
        train_on,
        train_rows,
        batch_size=config.data.batch_size,
        seed=config.seed,
        workers=0 if placed else config.data.workers,  # A plan is made in no time.
        read=placed.plan if placed else None,
        neighbours=near,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )

    # 3. The task and its steps.
    key = jax.random.key(config.seed)
    with folder.config_mistakes():
        make = functools.partial(TASKS[config.task], config, mesh=devices)
        task = make(intensity=dataset.intensity, readers=dataset.readers)
        train_task = make(intensity=mixed.intensity, readers=mixed.readers) if mixed else task
        optimizer = step.make_optimizer(config.optimizer, config.steps)
        shape = slices.batch(val_rows[:1])
        config_checks.check_memory(sum(part.nbytes for part in shape.values()), config, processes=jax.process_count())
        create = functools.partial(state.create_state, task, optimizer, batch=shape, averaged=config.average_decay > 0)
        parameters = config.mesh.parameters if "mesh" in config else "replicated"
        shardings = mesh.state_shardings(jax.eval_shape(create, rng=key), devices, parameters=parameters)
        train_state = jax.jit(lambda rng: create(rng=rng), out_shardings=shardings)(key)
    train_steps = functools.cache(
        functools.partial(
            step.make_train_step,
            train_task,
            optimizer,
            devices,
            key,
            average_decay=config.average_decay,
            schedule=step.make_schedule(config.optimizer, config.steps),
            draw=placed.draw if placed else None,
            shardings=shardings,
        )
    )
    pixels = (placed.pixels,) if placed else ()
    detail_step = step.make_detail_step(train_task, devices) if train_task.detail_fn else None
    validation = Validation(task, devices, key, slices, val_rows, config.data.batch_size, train_rows=train_rows)

    # 4. A workdir resumes only with the configuration and patients it was started with; a new run may start from
    # another network.
    lead = jax.process_index() == 0
    identities = {"data.path": manifest.identity(dataset.manifest)}
    for part in mixed.parts if mixed else ():
        identities[f"data.parts.{part.name}.path"] = manifest.identity(part.slices.dataset.manifest)
    folder.check_begun(workdir, config, patients, data=identities)
    if lead:
        folder.make(workdir, option="--workdir")
    transferred = ""
    if config.init_from and not checkpoint.has_checkpoint(workdir):
        source = trained.open_encoder(Path(config.init_from))
        if source.patients:
            splits.lock(source.patients, patients, where=config.data.path)
        train_state, transferred = transfer.load_weights(
            train_state, source, task=config.task, planes=Context.of(config).planes
        )

    # 5. This run's checkpoint, if there is one, replaces the new state.
    with (
        Checkpoints(workdir, every=config.checkpoint_every, keep=config.keep_checkpoints) as checkpoints,
        logs.Progress(steps=config.steps, batch_size=config.data.batch_size, show=lead) as progress,
        logs.Writer(workdir, write=lead) as writer,
    ):
        restored = checkpoints.restore(train_state)
        if restored is not None:
            train_state = restored
        elif transferred:
            progress.say(transferred)
        if lead:  # Only now: after a mistake so far, the corrected command can still use the workdir.
            spacings = extent.spacing_extent(train_on.index, train_on.index_rows(train_rows))
            folder.record_run(workdir, config, patients, intensity=train_on.intensity, seen=spacings, data=identities)
        first_step = int(jax.device_get(train_state.step))
        writer.start(first_step)
        progress.start(
            first_step,
            f"{config.task}: {state.parameter_count(train_state.params):,} parameters, {len(train_rows)} train and "
            f"{len(val_rows)} val slices, {jax.device_count()} {jax.default_backend()} device(s), step {first_step}",
        )

        if validation.probe and validation.probe.not_probed:
            progress.say(validation.probe.not_probed)

        def log(number: int, figures: dict[str, float]) -> None:
            progress.show(number, figures)
            writer.write(number, figures)

        # 6. The loop. The host does not wait for the current step, only for the figures of earlier ones.
        window = Window(workdir, log, complete=placed.read if placed else dict)
        done, stopping = first_step, False
        with (
            contextlib.closing(batches_from(start=first_step)) as batches,
            StopSignal() as stop,
            Profile(workdir, profile_steps, done=first_step, say=progress.say) as profile,
        ):
            while done < config.steps and not stopping:
                count = steps_at_once(config, done)
                waiting = time.perf_counter()
                chosen = [next(batches) for _ in range(count)]
                batch = chosen[0] if count == 1 else jax.tree.map(lambda *parts: np.stack(parts), *chosen)
                progress.add_wait(time.perf_counter() - waiting)
                profile.begin(done + 1, done + count)
                done += count
                logged = done % config.log_every == 0 or done == config.steps
                with jax.transfer_guard("disallow"):
                    inputs = (mesh.to_devices(batch, devices, axis=int(count > 1)), *pixels)
                    train_state, figures = train_steps(steps=count)(train_state, *inputs)
                    details = figures.pop(DETAILS, None)
                    of_last = detail_step(details) if detail_step and logged else None
                profile.end(done, figures)
                window.add(done, figures, chosen, of_last=of_last)
                progress.advance(count)
                stopping = stop.reached(done) and done < config.steps
                last = done == config.steps or stopping

                # 7. Figures of the steps since the last log: written once they are there, two steps later.
                if logged or stopping:
                    window.end(done, progress.rates())

                # 8. Validation. A run that must stop still validates where it is due: the resumed run would not.
                score = None
                if done % config.eval_every == 0 or done == config.steps:
                    window.flush()
                    with progress.paused():
                        scores = validation.scores(train_state)
                        score = scores[task.best]
                        progress.say(f"step {done}: " + ", ".join(f"val {k} {v:.4g}" for k, v in scores.items()))
                        writer.write(done, {f"val/{name}": value for name, value in scores.items()})
                        validation.draw(train_state, workdir, done)

                # 9. A checkpoint, where one is due and for every state that is the best so far, after its loss is known
                # to be finite.
                if done % config.checkpoint_every == 0 or score is not None or last:
                    window.flush()
                    checkpoints.save(done, train_state, score=score, force=last)
                if stopping:
                    progress.say(f"stopped at step {done} and saved; the same command resumes here")

    # 10. Calibration, once the best checkpoint is complete.
    if task.calibrated and not stopping:  # By every process: they read a checkpoint together.
        summary = calibrate.fit_calibration(workdir, task, slices, val_rows, config, train_rows=train_rows, write=lead)
        progress.say(summary)
    return not stopping
