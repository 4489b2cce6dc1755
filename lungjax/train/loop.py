"""The training loop, the same for every task. Read it from top to bottom."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from lungjax.data import loader, splits
from lungjax.data.context import Context
from lungjax.data.loader import Batch
from lungjax.errors import InputError
from lungjax.tasks import accumulation, kinds
from lungjax.tasks.kinds import TASKS
from lungjax.tasks.task import DETAILS, Config
from lungjax.train import calibrate, config_checks, logs, mesh, state, step, trained, transfer
from lungjax.train import runs as running
from lungjax.train import workdir as folder
from lungjax.train.evals import Validation
from lungjax.train.outputs import Outputs, save
from lungjax.train.profile import Profile
from lungjax.train.watch import StopSignal


def check_config(config: Config, *, replicas: int | None = None) -> None:
    """Checks all of a configuration that can be checked without data.

    Args:
      config: of a run.
      replicas: how many such runs are trained together; None for `config.replicas`.

    Raises:
      InputError: a value is out of range or unknown, no network can be made of them, or a batch fits no memory.
    """
    if config.task not in TASKS:
        raise InputError(f"config.task is {config.task!r}; use one of {', '.join(TASKS)}.")
    config_checks.check(config)
    together: int = max(config.get("replicas", 1), 1) if replicas is None else replicas
    processes = jax.process_count()
    config_checks.check_replicas(config, together, processes=processes)
    config_checks.check_memory(loader.crop_bytes(config.data), config, processes=processes, replicas=together)
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
    """Trains up to `config.steps`, resuming from the latest checkpoint in `workdir` if there is one; `config.replicas`
    seeds together, each in a workdir of its own in `workdir`.

    Args, Returns, Raises: as `train_together`.
    """
    return train_together(running.replicas(config, workdir), profile_steps=profile_steps)


def train_together(planned: Sequence[running.Planned], *, profile_steps: range = range(0)) -> bool:
    """Trains runs in one program: one run, or several with a first axis of runs in all arrays (`jax.vmap`).

    Each run is what it would be by itself, but for rounding, and has a workdir as if it had been by itself.

    Args:
      planned: the configuration and workdir of each; configurations differ at most in `lungjax.train.runs.OWN`.
      profile_steps: steps to trace, see `lungjax.train.profile`.

    Returns:
      True when the runs are complete, False when SIGTERM or Ctrl-C stopped them after saving.

    Raises:
      InputError: the configuration, data or workdir cannot be used.
      NotFinite: a loss became NaN or infinite; its batch is saved in the workdir.
    """
    # 1. The configuration, the data and its split of patients, the devices.
    config = planned[0][0]
    running.check_same_program([own for own, _ in planned])
    check_config(config, replicas=len(planned))
    for own, _ in planned:
        config_checks.check(own)
    devices = mesh.make_mesh(config.data.batch_size)
    deterministic: bool = config.get("deterministic", False)

    # 2. Data: every task, pretraining too, trains on the train patients only; of several data sets if there are parts.
    runs = [running.Run(own, workdir) for own, workdir in planned]
    several = len(runs) > 1
    first = runs[0]
    running.check_same_arrays(runs)
    placed = None
    if config.data.get("placement") == "device":
        put = functools.partial(mesh.to_every_device, mesh=devices)
        placed = running.place(runs, put=put, devices=devices.local_devices)

    # 3. The task and its steps.
    with folder.config_mistakes():
        make = functools.partial(TASKS[config.task], config, mesh=devices)
        task = make(intensity=first.dataset.intensity, readers=first.dataset.readers)
        mixed = first.mixture
        train_task = make(intensity=mixed.intensity, readers=mixed.readers) if mixed else task
        optimizer = step.make_optimizer(config.optimizer, config.steps)
        shape = first.slices.batch(first.val_rows[:1])
        image_bytes = sum(part.nbytes for part in shape.values())
        config_checks.check_memory(image_bytes, config, processes=jax.process_count(), replicas=len(runs))
        create = functools.partial(state.create_state, task, optimizer, batch=shape, averaged=config.average_decay > 0)
        parameters = config.mesh.parameters if "mesh" in config else "replicated"
        shardings = mesh.state_shardings(jax.eval_shape(create, rng=first.key), devices, parameters=parameters)
        new_state = jax.jit(lambda rng: create(rng=rng), out_shardings=shardings)
        states = [new_state(run.key) for run in runs]
    train_steps = functools.cache(
        functools.partial(
            step.make_train_step,
            train_task,
            optimizer,
            devices,
            jnp.stack([run.key for run in runs]) if several else first.key,
            average_decay=config.average_decay,
            schedule=step.make_schedule(config.optimizer, config.steps),
            draw=placed.draw if placed else None,
            shardings=shardings,
            deterministic=deterministic,
        )
    )
    pixels = (placed.pixels,) if placed else ()
    detail_step = None
    if train_task.detail_fn:
        detail_step = step.make_detail_step(train_task, devices, replicas=several, deterministic=deterministic)
    validations = [
        Validation(
            task,
            devices,
            run.key,
            run.slices,
            run.val_rows,
            config.data.batch_size,
            train_rows=run.train_rows,
            deterministic=deterministic,
        )
        for run in runs
    ]

    # 4. A workdir resumes only with the configuration and patients it was started with; a new run may start from
    # another network.
    lead = jax.process_index() == 0
    for run in runs:
        run.check_begun()
    resumed_from = running.last_common_step([run.workdir for run in runs])
    transferred = []
    for number, run in enumerate(runs):
        if lead:
            folder.make(run.workdir, option="--workdir")
        if run.config.init_from and resumed_from is None:
            source = trained.open_encoder(Path(run.config.init_from))
            if source.patients:
                splits.lock(source.patients, run.patients, where=run.config.data.path)
            states[number], summary = transfer.load_weights(
                states[number], source, task=config.task, planes=Context.of(config).planes
            )
            transferred.append(summary)

    with contextlib.ExitStack() as closing:
        progress = closing.enter_context(
            logs.Progress(steps=config.steps, batch_size=config.data.batch_size * len(runs), show=lead)
        )
        outputs = [
            closing.enter_context(
                Outputs(
                    run,
                    validation,
                    progress,
                    replica=number if several else None,
                    complete=placed.read if placed else dict,
                    write=lead,
                )
            )
            for number, (run, validation) in enumerate(zip(runs, validations, strict=True))
        ]

        # 5. The runs' checkpoints, if there are some, replace the new states.
        if resumed_from is not None:
            states = [own.checkpoints.restore(new, step=resumed_from) for own, new in zip(outputs, states, strict=True)]
        for sentence in dict.fromkeys(transferred):
            progress.say(sentence)
        first_step = resumed_from or 0
        for run, own in zip(runs, outputs, strict=True):
            if lead:  # Only now: after a mistake so far, the corrected command can still use the workdir.
                run.record()
            own.start(first_step)
        together = f"{len(runs)} runs together, of each " if several else ""
        progress.start(
            first_step,
            f"{config.task}: {together}{state.parameter_count(states[0].params):,} parameters, "
            f"{len(first.train_rows)} train and {len(first.val_rows)} val slices, "
            f"{jax.device_count()} {jax.default_backend()} device(s), step {first_step}",
        )
        if (probe := validations[0].probe) and probe.not_probed:
            progress.say(probe.not_probed)
        train_state = state.stack(states)
        del states

        # 6. The loop. The host does not wait for the current step, only for the figures of earlier ones.
        done, stopping = first_step, False
        batches = [
            closing.enter_context(contextlib.closing(run.batches(start=first_step, placed=placed))) for run in runs
        ]
        stop = closing.enter_context(StopSignal())
        profile = closing.enter_context(Profile(first.workdir, profile_steps, done=first_step, say=progress.say))
        while done < config.steps and not stopping:
            count = steps_at_once(config, done)
            waiting = time.perf_counter()
            chosen = [[next(own) for own in batches] for _ in range(count)]
            batch = _stacked([_stacked(of_step) for of_step in chosen])
            progress.add_wait(time.perf_counter() - waiting)
            profile.begin(done + 1, done + count)
            done += count
            logged = done % config.log_every == 0 or done == config.steps
            with jax.transfer_guard("disallow"):
                inputs = (mesh.to_devices(batch, devices, axis=int(count > 1) + int(several)), *pixels)
                train_state, figures = train_steps(steps=count)(train_state, *inputs)
                details = figures.pop(DETAILS, None)
                of_last = detail_step(details) if detail_step and logged else None
            profile.end(done, figures)
            for number, own in enumerate(outputs):
                own.add(done, figures, [of_step[number] for of_step in chosen], of_last=of_last)
            progress.advance(count)
            stopping = stop.reached(done) and done < config.steps
            last = done == config.steps or stopping

            # 7. Figures of the steps since the last log: written once they are there, two steps later.
            if logged or stopping:
                rates = progress.rates()
                for own in outputs:
                    own.end(done, rates)

            # 8. Validation. A run that must stop still validates where it is due: the resumed run would not.
            validated = done % config.eval_every == 0 or done == config.steps
            if not (validated or done % config.checkpoint_every == 0 or last):
                continue
            for own in outputs:
                own.flush()
            states = state.unstack(train_state, len(runs))
            if validated:
                with progress.paused():
                    for own, own_state in zip(outputs, states, strict=True):
                        own.validate(done, own_state, best=task.best)

            # 9. A checkpoint, where one is due and for every state that is the best so far, after its loss is known
            # to be finite.
            save(outputs, done, states, force=last)
            if stopping:
                progress.say(f"stopped at step {done} and saved; the same command resumes here")

    # 10. Calibration, once the best checkpoint is complete.
    for run in runs if task.calibrated and not stopping else ():  # By every process: they read a checkpoint together.
        summary = calibrate.fit_calibration(
            run.workdir, task, run.slices, run.val_rows, run.config, train_rows=run.train_rows, write=lead
        )
        progress.say(f"{run.workdir.name}: {summary}" if several else summary)
    return not stopping


def _stacked(batches: Sequence[Batch]) -> Batch:
    """Batches as one, whose arrays have a first axis of batches; one as it is."""
    return batches[0] if len(batches) == 1 else jax.tree.map(lambda *parts: np.stack(parts), *batches)
