"""Training: `python -m lungjax.main --config=NAME[:VARIANT] --workdir=DIR [--config.KEY=VALUE]`.

NAME is one of lungjax's own configurations (classify, diagnose, segment, sift, simclr), or the path of a file like
those. Each file says which variants it has, what they need and what to expect from them; `quick` is for a first try.

On several machines, run the same command on each, with `--coordinator`: `auto` on TPU pods, Slurm and Open MPI, where
JAX detects the rest; otherwise `HOST:PORT` of the first machine, with `--processes` and `--process`.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from lungjax import compiled, paths
from lungjax.errors import MACHINE_ERRORS, InputError, tell_once

_CONFIG = config_flags.DEFINE_config_file("config", None, "NAME or NAME:VARIANT, or a file's path.", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; the same command resumes a stopped run.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "For several processes: `auto`, or HOST:PORT of process 0.")
_PROCESSES = flags.DEFINE_integer("processes", None, "Number of processes, unless --coordinator=auto.")
_PROFILE = flags.DEFINE_string("profile_steps", None, "FROM:TO, steps to trace into WORKDIR/profile; see the docs.")
_PROCESS = flags.DEFINE_integer("process", None, "Number of this process, from 0, unless --coordinator=auto.")


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, or stopped by SIGTERM or Ctrl-C after saving; 1 the loss became NaN or infinite; 2 a
    user's mistake, or a disk that is full or not writable; 130 Ctrl-C before the first step, or a second Ctrl-C.

    Args:
      argv: the program's name and its arguments; None for the command line's.
    """
    argv = [*(sys.argv if argv is None else argv)]
    if {"-h", "-help", "--help", "--helpfull", "--helpshort"} & {*argv[1:]}:
        print(_usage())
        return 0
    try:
        _parse(with_paths(argv))
        return _train()
    except InputError as error:
        print(f"lungjax: error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in MACHINE_ERRORS:
            raise
        where = error.filename or _WORKDIR.value
        print(
            f"lungjax: error: {where}: {error.strerror}; the same command goes on from the last checkpoint",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("lungjax: interrupted; the same command resumes from the last checkpoint", file=sys.stderr)
        return 130


def with_paths(argv: Sequence[str]) -> list[str]:
    """The arguments, with a configuration's name replaced by the path of its file.

    Raises:
      InputError: there is no configuration of that name, or no file at that path.
    """
    arguments, after_flag = [], False
    for argument in argv:
        flag, equals, value = argument.partition("=")
        is_flag = flag in ("--config", "-config")
        if after_flag:
            argument = _config_file(argument)
        elif is_flag and equals:
            argument = f"{flag}={_config_file(value)}"
        after_flag = is_flag and not equals
        arguments.append(argument)
    return arguments


def config_files() -> dict[str, Path]:
    """lungjax's own configurations by name: from the installed package, or from the repository it runs in."""
    folder = Path(__file__).parent / "configs"
    if not folder.is_dir():
        folder = Path(__file__).parents[1] / "configs"
    return {path.stem: path for path in sorted(folder.glob("[!_]*.py"))}


def _config_file(value: str) -> str:
    """`segment:quick` -> `.../configs/segment.py:quick`; a path stays as it is."""
    name, colon, variant = value.partition(":")
    files = config_files()
    if name in files:
        return f"{files[name]}{colon}{variant}"
    if Path(name).is_file():
        return value
    names = ", ".join(files)
    raise InputError(
        f"--config={value}: there is no configuration and no file {name}; use one of {names}, or the path of a file."
    )


def _usage() -> str:
    names = ("config", "workdir", "profile_steps", "coordinator", "processes", "process")
    lines = [f"  --{name}: {' '.join(str(flags.FLAGS[name].help).split())}" for name in names]
    value = "  --config.KEY=VALUE: replaces a value of the configuration, for instance --config.data.path=data/lidc"
    return "\n".join([str(__doc__), *lines, value])


def _parse(argv: list[str]) -> None:
    try:
        _check_overrides(argv)
        flags.FLAGS(argv)
        if _CONFIG.value is not None:
            _ = _CONFIG.value.task  # Raises if the file could not be read.
    except InputError:
        raise
    except flags.UnrecognizedFlagError as error:
        raise InputError(f"{last_line(error).replace(' ?', '?')}; see --help.") from error
    except Exception as error:  # A configuration is code: it and ml_collections may raise anything.
        raise InputError(
            f"--config: {last_line(error)}; see the configuration's file for its keys and variants."
        ) from error
    for flag in ("config", "workdir"):
        if flags.FLAGS[flag].value is None:
            names = ", ".join(config_files())
            example = "python -m lungjax.main --config=segment:quick --workdir=DIR"
            raise InputError(f"--{flag} is missing: {example}; the configurations are {names}.")


def _check_overrides(argv: Sequence[str]) -> None:
    from lungjax.train import config_checks

    flag = ("--config", "-config")
    values = [argument.partition("=")[2] for argument in argv if argument.partition("=")[0] in flag]
    following = [after for argument, after in itertools.pairwise(argv) if argument in flag]
    for value in [value for value in (*values, *following) if value][:1]:
        unchanged = flags.FlagValues()
        config_flags.DEFINE_config_file("config", flag_values=unchanged, sys_argv=[])
        unchanged(["", f"--config={value}"])
        config_checks.check_overrides(argv, unchanged["config"].value)


def last_line(error: BaseException) -> str:
    """The last line of an error, where ml_collections names the wrong key or path, below its own tracebacks."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error.args[0]) if error.args else repr(error)
    line = text.replace("\\n", "\n").strip().splitlines()[-1].strip(' ."')
    line = line.strip("'") if line.count("'") % 2 else line
    return line if " " in line else f"there is no key {line}"


def _train() -> int:
    compiled.keep()
    import jax

    coordinator = _COORDINATOR.value
    try:
        if coordinator == "auto":
            jax.distributed.initialize()
        elif coordinator:
            jax.distributed.initialize(coordinator, _PROCESSES.value, _PROCESS.value)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"--coordinator={coordinator}: {last_line(error)}; see --help for its forms.") from error
    from lungjax.preparation.builtin import resolve
    from lungjax.train import devices, profile, runs
    from lungjax.train import workdir as folder
    from lungjax.train.loop import check_config, train_and_evaluate
    from lungjax.train.watch import NotFinite

    devices.find()
    config, workdir = _CONFIG.value, paths.local(str(_WORKDIR.value))
    check_config(config)  # Before the built-in data are made.
    traced = profile.parse_steps(_PROFILE.value, steps=config.steps) if _PROFILE.value is not None else range(0)
    with contextlib.ExitStack() as held:
        for path in dict.fromkeys([workdir, *(path for _, path in runs.replicas(config, workdir))]):
            held.enter_context(folder.held(path))
        if jax.process_index() == 0:
            resolve(config.data.path)
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            multihost_utils.sync_global_devices("data")
        config.data.path = str(resolve(config.data.path))
        try:
            train_and_evaluate(config, workdir, profile_steps=traced)
        except (MemoryError, jax.errors.JaxRuntimeError) as error:
            if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise InputError(
                f"the memory is too small for batches of config.data.batch_size={config.data.batch_size}; lower it, or "
                f"the size of images or network ({last_line(error)})."
            ) from error
        except NotFinite as error:
            print(f"lungjax: error: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    tell_once()  # Until the process ends: threads may end later than `main`.
    sys.exit(main())
