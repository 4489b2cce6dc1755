"""Training: `python -m lungjax.main --config=configs/simclr.py[:quick] --workdir=DIR [--config.key=value]`.

On several machines the same command runs on each, with `--coordinator`: `auto` on TPU pods, Slurm and Open MPI,
where JAX finds out the rest, otherwise `HOST:PORT` of the first with `--processes` and `--process`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from lungjax.errors import InputError

_CONFIG = config_flags.DEFINE_config_file("config", None, "configs/NAME.py or configs/NAME.py:quick", lock_config=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; the same command goes on where it stopped.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "Several processes: `auto`, or HOST:PORT of process 0.")
_PROCESSES = flags.DEFINE_integer("processes", None, "Number of processes, unless --coordinator=auto.")
_PROCESS = flags.DEFINE_integer("process", None, "Number of this process, from 0, unless --coordinator=auto.")


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, or stopped by SIGTERM or Ctrl-C after saving; 1 the loss became NaN; 2 a user's mistake;
    130 a Ctrl-C before the first step, or a second one.
    """
    argv = sys.argv if argv is None else argv
    if {"-h", "-help", "--help", "--helpfull", "--helpshort"} & {*argv[1:]}:
        print(_usage())
        return 0
    try:
        _parse(argv)
        return _train()
    except InputError as error:
        print(f"lungjax: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lungjax: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130


def _usage() -> str:
    names = ("config", "workdir", "coordinator", "processes", "process")
    lines = [f"  --{name}: {' '.join(str(flags.FLAGS[name].help).split())}" for name in names]
    value = "  --config.KEY=VALUE: replaces a value of the configuration, for instance --config.data.path=data/lidc"
    return "\n".join([str(__doc__), *lines, value])


def _parse(argv: list[str]) -> None:
    try:
        flags.FLAGS(argv)
        if _CONFIG.value is not None:
            _ = _CONFIG.value.task  # Fails where the file could not be read.
    except Exception as error:  # A configuration is code: it and ml_collections raise whatever they like.
        raise InputError(f"--config: {_last_line(error)}; see the file given there for what it offers.") from error
    for flag in ("config", "workdir"):
        if flags.FLAGS[flag].value is None:
            raise InputError(f"--{flag} is missing: python -m lungjax.main --config=configs/segment.py --workdir=DIR")


def _last_line(error: BaseException) -> str:
    """Where ml_collections puts the key or path at fault, below tracebacks of its own."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error.args[0]) if error.args else repr(error)
    line = text.replace("\\n", "\n").strip().splitlines()[-1].strip(' ."')
    line = line.strip("'") if line.count("'") % 2 else line
    return line if " " in line else f"there is no key {line}"


def _train() -> int:
    import jax

    coordinator = _COORDINATOR.value
    try:
        if coordinator == "auto":
            jax.distributed.initialize()
        elif coordinator:
            jax.distributed.initialize(coordinator, _PROCESSES.value, _PROCESS.value)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"--coordinator={coordinator}: {_last_line(error)}; see --help for its forms.") from error
    from lungjax.preparation.builtin import resolve
    from lungjax.train.loop import train_and_evaluate
    from lungjax.train.watch import NotFinite

    config = _CONFIG.value
    if jax.process_index() == 0:
        resolve(config.data.path)
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("data")
    config.data.path = str(resolve(config.data.path))
    try:
        train_and_evaluate(config, Path(str(_WORKDIR.value)))
    except NotFinite as error:
        print(f"lungjax: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
