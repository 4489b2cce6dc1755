"""What devices say to each other in a training step, read from the compiled program; needs no accelerator.

    python scripts/scaling.py --devices 64 --config=configs/segment.py:quick [--config.mesh.parameters=sharded ...]

compiles the step of a configuration for so many CPU devices, which need not be there, and prints a line of JSON:
`collectives`, by kind, their number and the bytes of their results on each device; `parameters`; `flops` of one device.
Nothing is trained, and no data are read. `--per_device` is the number of slices on each device.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections import defaultdict
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from ml_collections import config_flags

from lungjax.errors import InputError
from lungjax.train import loop, mesh, state, step

_FLAGS = flags.FlagValues()
_CONFIG = config_flags.DEFINE_config_file("config", None, "as for training", flag_values=_FLAGS)
_DEVICES = flags.DEFINE_integer("devices", 8, "number of devices", flag_values=_FLAGS)
_BATCH = flags.DEFINE_integer("per_device", 1, "slices on each device", flag_values=_FLAGS)

_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
_COLLECTIVE = re.compile(rf"= (\(?[^=]*?) ({'|'.join(_KINDS)})(?:-start)?\(")
_ARRAY = re.compile(r"\b([a-z]+)(\d+)\[([\d,]*)\]")


def collectives(text: str) -> dict[str, dict[str, int]]:
    """Of a compiled program: by kind, the number of collectives, and the bytes of their results."""
    found: dict[str, dict[str, int]] = defaultdict(lambda: {"count": 0, "bytes": 0})
    for results, kind in _COLLECTIVE.findall(re.sub(r"/\*.*?\*/", "", text)):  # Long tuples are numbered in comments.
        found[kind]["count"] += 1
        for _, bits, shape in _ARRAY.findall(results):
            found[kind]["bytes"] += max(int(bits) // 8, 1) * math.prod(int(side) for side in shape.split(",") if side)
    return dict(found)


def compiled_step(config: Any, devices: int, per_device: int) -> dict[str, Any]:
    """Compiles the step; see the module's docstring for what is returned."""
    config.data.batch_size = devices * per_device
    over = mesh.make_mesh(config.data.batch_size)
    task = loop.TASKS[config.task](config, intensity="hu", readers=4, mesh=over)
    optimizer = step.make_optimizer(config.optimizer, config.steps)
    images = (config.data.batch_size, config.data.crop_px, config.data.crop_px)
    kinds = {"image": (images, jnp.int16), "weight": (images[:1], jnp.float32)}
    if config.task == "pretrain":
        kinds |= {"scan": (images[:1], jnp.int32), "z_mm": (images[:1], jnp.float32)}
    else:
        kinds["readers"] = (images, jnp.uint8)
    batch = {name: jax.ShapeDtypeStruct(*kind) for name, kind in kinds.items()}
    averaged = config.average_decay > 0
    fresh = jax.eval_shape(
        lambda key: state.create_state(task, optimizer, key, batch, averaged=averaged), jax.random.key(0)
    )
    train_step: Any = step.make_train_step(
        task,
        optimizer,
        over,
        jax.random.key(0),
        average_decay=config.average_decay,
        shardings=mesh.state_shardings(fresh, over, parameters=config.mesh.parameters),
    )
    program = train_step.lower(fresh, batch).compile()
    return {
        "devices": devices,
        "per_device": per_device,
        "parameters": state.parameter_count(fresh.params),
        "flops": program.cost_analysis()["flops"],
        "collectives": collectives(program.as_text()),
    }


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & {*argv}:
        print(__doc__)
        return 0
    try:
        _FLAGS(argv)
        if _CONFIG.value is None:
            raise InputError("--config is missing; see --help for an example.")
        jax.config.update("jax_num_cpu_devices", _DEVICES.value)
        jax.config.update("jax_platforms", "cpu")
        print(json.dumps(compiled_step(_CONFIG.value, _DEVICES.value, _BATCH.value)))
        return 0
    except (InputError, flags.Error, ValueError) as error:
        print(f"scaling: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv))
