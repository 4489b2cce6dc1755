"""What devices say to each other in a training step, read from the compiled program; needs no accelerator.

    python scripts/scaling.py --devices 64 --config=configs/segment.py:quick [--config.mesh.parameters=sharded ...]

compiles the step of a configuration for so many CPU devices, which need not be there, and prints a line of JSON:
`collectives`, by kind, their number and the bytes of their results on each device; `parameters`; `flops` of one device.
Nothing is trained, and no data are read. `--per_device` is the number of slices on each device.

    pip install "jax[tpu]"
    python scripts/scaling.py --topology v5e:2x4 --per_device 8 --config=configs/segment.py
    python scripts/scaling.py --predict

compile it for TPUs, which need not be there either: libtpu has the compiler. The line then also has `hbm_bytes`, which
the instructions of the program read and write in a chip's memory, and `predicted`, milliseconds that its FLOPs, these
bytes and the bytes on its links take at the published peaks, and the longest of them, `step_ms`. `--predict` prints a
table of that for the full-size configurations on 8 and on 256 chips, each of whose programs takes minutes to compile. A
prediction is no measurement: nothing waits for anything in it, layouts are not padded, and gathers and element-wise
work are free but for their bytes.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import runpy
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh
from ml_collections import config_flags

from lungjax.errors import InputError
from lungjax.train import loop, mesh, state, step

_FLAGS = flags.FlagValues()
_CONFIG = config_flags.DEFINE_config_file("config", None, "as for training", flag_values=_FLAGS)
_DEVICES = flags.DEFINE_integer("devices", 8, "number of devices", flag_values=_FLAGS)
_TOPOLOGY = flags.DEFINE_string("topology", None, "of TPUs, such as v5e:2x4, to compile for", flag_values=_FLAGS)
_PREDICT = flags.DEFINE_boolean("predict", False, "print the table of predictions", flag_values=_FLAGS)
_BATCH = flags.DEFINE_integer("per_device", 1, "slices on each device", flag_values=_FLAGS)

_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
_COLLECTIVE = re.compile(rf"= (\(?[^=]*?) ({'|'.join(_KINDS)})(?:-start)?\(")
_PART = re.compile(r"channel_id=(\d+),.*async_collective_fusion_config")
_ARRAY = re.compile(r"\b([a-z]+)(\d+)\[([\d,]*)\](?:\{([^}]*)\})?")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*?)\)(?:, |$)(.*)", re.MULTILINE)
_NOTHING_MOVES = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id"}

PEAKS = {"flops_per_s": 197e12, "hbm_bytes_per_s": 819e9, "link_bytes_per_s": 200e9}
"""Of a TPU v5e chip, in bfloat16; its four links together, in one direction. https://cloud.google.com/tpu/docs/v5e has
197 TFLOPs, 819 GBps, and 400 GBps in both directions, formerly 1,600 Gbps."""
TABLE = (
    ("simclr", "v5e:2x4", 64),
    ("simclr", "v5e:16x16", 2),
    ("segment", "v5e:2x4", 8),
    ("segment", "v5e:16x16", 1),
)
"""Configuration, topology and slices a chip: the configuration's batch, or a slice a chip where that is fewer."""


def collectives(text: str) -> dict[str, dict[str, int]]:
    """Of a compiled program: by kind, the number of collectives, and the bytes of their results."""
    found: dict[str, dict[str, int]] = defaultdict(lambda: {"count": 0, "bytes": 0})
    parts: set[str] = set()
    for line in re.sub(r"/\*.*?\*/", "", text).splitlines():  # Long tuples are numbered in comments.
        if not (collective := _COLLECTIVE.search(line)):
            continue
        results, kind = collective.groups()
        part = _PART.search(line)  # On a TPU, of one that goes on in several fusions.
        if part and kind + part[1] in parts:
            continue
        parts |= {kind + part[1]} if part else set()
        found[kind]["count"] += 1
        found[kind]["bytes"] += sum(size for size, _ in _arrays(results))
    return dict(found)


def _arrays(text: str) -> list[tuple[int, bool]]:
    """Of the arrays in the text of a type: bytes, and whether they lie in HBM, not in a memory on the chip."""
    return [
        (
            max(int(bits) // 8, 1) * math.prod(int(side) for side in shape.split(",") if side),
            "S(" not in layout,
        )
        for _, bits, shape, layout in _ARRAY.findall(text)
    ]


def hbm_bytes(text: str) -> int:
    """Bytes that the instructions of a program compiled for a TPU read and write in HBM.

    An array that lies in VMEM costs nothing but its copy from there or to there; what a fusion computes within costs
    nothing. An operand counts whole, also where a part of it is read.

    Raises:
      ValueError: the program has a loop, of which the number of rounds is not known.
    """
    entry = re.sub(r"/\*.*?\*/", "", text[text.index("\nENTRY ") :])
    arrays: dict[str, list[tuple[int, bool]]] = {}
    total = 0
    for name, results, kind, operands, rest in _INSTRUCTION.findall(entry):
        arrays[name] = made = _arrays(results)
        if kind == "while":
            raise ValueError(f"the program has a loop, {name}, whose bytes are not known")
        if kind in _NOTHING_MOVES or kind.endswith("-done") or "ConcatBitcast" in rest:
            continue
        read = [array for operand in re.findall(r"%([\w.-]+)", operands) for array in arrays.get(operand, [])]
        if kind in ("copy-start", "slice-start"):  # Its result names the operand, too; of a slice only a part is read.
            made = [array for array in made if array[0] > 4][-1 if kind == "slice-start" else 0 :][:1]
            read = [(made[0][0], in_hbm) for _, in_hbm in read[:1]] if made else []
        total += sum(size for size, in_hbm in (*made, *read) if in_hbm)
    return total


def link_bytes(found: Mapping[str, Mapping[str, int]], devices: int) -> float:
    """Bytes that a device must send for the `collectives` of a program, in rings."""
    of_result = {
        "all-reduce": 2 * (devices - 1) / devices,
        "all-gather": (devices - 1) / devices,
        "reduce-scatter": devices - 1,
    }
    return sum(of_result.get(kind, 1) * moved["bytes"] for kind, moved in found.items())


def predicted(step: Mapping[str, Any]) -> dict[str, float]:
    """Milliseconds that a step takes at least by each of a chip's `PEAKS`, and by the one that it needs most."""
    of_peak = {
        "compute_ms": step["flops"] / PEAKS["flops_per_s"],
        "hbm_ms": step["hbm_bytes"] / PEAKS["hbm_bytes_per_s"],
        "link_ms": link_bytes(step["collectives"], step["devices"]) / PEAKS["link_bytes_per_s"],
    }
    of_peak = {name: 1e3 * seconds for name, seconds in of_peak.items()}
    return {**of_peak, "step_ms": max(of_peak.values())}


def tpu_mesh(topology: str) -> Mesh:
    """The mesh of TPUs that need not be there.

    Raises:
      InputError: libtpu is not installed, or does not know the topology.
    """
    if not (importlib.util.find_spec("libtpu") or "TPU_LIBRARY_PATH" in os.environ):
        raise InputError("--topology and --predict need the compiler for TPUs, which is missing: pip install libtpu")
    for name, value in (("ACCELERATOR_TYPE", "v5litepod-8"), ("WORKER_HOSTNAMES", "localhost")):
        os.environ.setdefault(f"TPU_{name}", value)  # Else libtpu warns that it cannot find its machine.
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except Exception as error:  # JAX and libtpu raise several kinds.
        why = str(error).strip().splitlines()[0]
        raise InputError(f"--topology={topology} cannot be compiled for ({why}); name one such as v5e:2x4.") from error
    return jax.make_mesh((len(devices),), (mesh.DATA_AXIS,), devices=devices, axis_types=(AxisType.Auto,))


def compiled_step(config: Any, devices: int | Mesh, per_device: int) -> dict[str, Any]:
    """Compiles the step for so many CPU devices, or for the mesh; see the module's docstring for what is returned."""
    on_tpu = isinstance(devices, Mesh)
    number = devices.size if on_tpu else devices
    config.data.batch_size = number * per_device
    over = devices if on_tpu else mesh.make_mesh(config.data.batch_size)
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
    text = program.as_text()
    found = {
        "devices": number,
        "per_device": per_device,
        "parameters": state.parameter_count(fresh.params),
        "flops": program.cost_analysis()["flops"],
        "collectives": collectives(text),
    }
    if on_tpu:
        found["hbm_bytes"] = hbm_bytes(text)
        found["predicted"] = predicted(found)
    return found


def print_table() -> None:
    """A row for each of `TABLE`, as it comes."""
    meshes = {topology: tpu_mesh(topology) for _, topology, _ in TABLE}
    heads = ("configuration", "topology", "batch", "TFLOP", "HBM GB", "link MB", "compute ms", "HBM ms", "link ms")
    print(f"| {' | '.join(heads)} | step ms, at least |\n|{'---|' * (len(heads) + 1)}")
    for name, topology, per_device in TABLE:
        config = runpy.run_path(str(Path(__file__).parents[1] / "configs" / f"{name}.py"))["get_config"]()
        step = compiled_step(config, meshes[topology], per_device)
        sent = link_bytes(step["collectives"], step["devices"])
        cells = [name, topology, f"{step['devices'] * per_device}", f"{step['flops'] / 1e12:.2f}"]
        cells += [f"{step['hbm_bytes'] / 1e9:.2f}", f"{sent / 1e6:.1f}"]
        cells += [f"{ms:.2f}" for ms in step["predicted"].values()]
        print(f"| {' | '.join(cells)} |", flush=True)


def main(argv: list[str]) -> int:
    if {"-h", "--help"} & {*argv}:
        print(__doc__)
        return 0
    try:
        _FLAGS(argv)
        if _CONFIG.value is None and not _PREDICT.value:
            raise InputError("--config is missing; see --help for an example.")
        jax.config.update("jax_num_cpu_devices", _DEVICES.value)
        jax.config.update("jax_platforms", "cpu")
        if _PREDICT.value:
            print_table()
        else:
            devices = tpu_mesh(_TOPOLOGY.value) if _TOPOLOGY.value else _DEVICES.value
            print(json.dumps(compiled_step(_CONFIG.value, devices, _BATCH.value)))
        return 0
    except (InputError, flags.Error, ValueError) as error:
        print(f"scaling: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv))
