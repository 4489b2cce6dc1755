"""Training steps on a GPU, ours against the same networks in PyTorch, with the device's own limits, in one run.

    pip install torch==2.13.0
    python scripts/bench_gpu.py [--out workdir/bench-gpu] [--minutes 5.5] [--limit-s 100] [--only TEXT] [--tiny]

Ours is the trainer itself, `python -m lungjax.main`, with augmentation, clipping, moving average and figures, over
phantom slices: fed from the host (`config.data.placement=host`), and from the device with several steps a dispatch.
PyTorch does less in a step: network, loss, gradients and fused AdamW on one batch that lies on the GPU already, in
channels_last and TF32, with autocast for bfloat16; eager, by `torch.compile`, and by its mode `reduce-overhead`.
Without PyTorch only ours is timed.

First come the rate of bfloat16 matrix products and of copies on the device. FLOPs are those of the network's products,
three times those of its forward pass; "of peak" is their rate over that of the matrix products.

Each contender has a process of its own, and ends after `--limit-s`; the next one's process imports meanwhile, but does
not touch the device. Results are written as they come, a line of JSON each, to `results.jsonl` in `--out`, with what
each process said in `*.log`. After `--minutes` it ends; the same command then goes on with what is missing.
`--only` takes contenders whose name has that text; `--tiny` tries all of it, at a small size, also on a CPU.
"""

# PyTorch is an extra.
# pyright: reportMissingImports=false
from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import importlib.util
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bench_train

PEAK = "matrix products and copies"
HOST, DEVICE = "lungjax, fed from the host", "lungjax, fed from the device"
TORCH = {
    "PyTorch, eager": {},
    "PyTorch, torch.compile": {"mode": "default"},
    "PyTorch, reduce-overhead": {"mode": "reduce-overhead"},
}
"""Options of `torch.compile`; without any it is not compiled."""
RESULTS = "results.jsonl"
WINDOWS = 5
"""How many times the steps of a window are timed; the median counts."""


@dataclasses.dataclass(frozen=True)
class Workload:
    """A configuration to train with.

    Attributes:
      config: its name and variant.
      matrix_px: side of the slices that it is fed with.
      window: steps that are timed as one.
      at_once: steps a dispatch, where it is fed from the device; `window` is a multiple of it.
      changes: to the configuration.
    """

    config: str
    matrix_px: int
    window: int
    at_once: int
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)

    def tiny(self) -> Workload:
        changes = {
            "data.batch_size": 8,
            "data.workers": 0,
            "data.slices": "all",
            "model.encoder.depth": 10,
            "model.encoder.width": 8,
            "model.decoder": (16, 8, 8),
        }
        changes |= {"data.crop_px": 32} if self.matrix_px > 128 else {}
        changes |= {"model.projection_hidden": 16, "model.projection_out": 16} if "simclr" in self.config else {}
        return Workload(self.config, 32, 2, 2, {**self.changes, **changes})

    def read(self) -> Any:
        """The configuration."""
        import runpy

        from lungjax import main as trainer

        name, _, variant = self.config.partition(":")
        config = runpy.run_path(str(trainer.config_files()[name]))["get_config"](variant or "full")
        config.update_from_flattened_dict(self.changes)
        return config


WORKLOADS = {
    "segment:slices_gpu, float32": Workload("segment:slices_gpu", 128, 100, 10),
    "segment:slices_gpu, bfloat16": Workload("segment:slices_gpu", 128, 100, 10, {"compute_dtype": "bfloat16"}),
    "segment": Workload("segment", 512, 20, 10),
    "simclr": Workload("simclr", 512, 4, 4),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("workdir/bench-gpu"), help="default: %(default)s")
    parser.add_argument("--minutes", type=float, default=5.5, help="of all contenders; default: %(default)s")
    parser.add_argument("--limit-s", type=float, default=100.0, help="seconds of each; default: %(default)s")
    parser.add_argument("--only", default="", help="contenders whose name has this text")
    parser.add_argument("--tiny", action="store_true", help="small networks and slices, also on a CPU")
    parser.add_argument("--contender", help=argparse.SUPPRESS)  # A process of its own.
    given = parser.parse_args()
    if given.contender:
        return contend(given.contender, given.out, tiny=given.tiny)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # So that the contender is ended, too.
    ends_at = time.monotonic() + 60 * given.minutes
    given.out.mkdir(parents=True, exist_ok=True)
    about = f"{bench_train.describe()}{', tiny' if given.tiny else ''}"
    try:
        known = read_results(given.out, about)
    except ValueError as error:
        parser.error(str(error))
    kinds = [HOST, DEVICE, *(TORCH if importlib.util.find_spec("torch") else ())]
    if not importlib.util.find_spec("torch"):
        print("PyTorch is not installed (pip install torch==2.13.0): our steps only.")
    names = [PEAK, *(f"{workload}: {kind}" for workload in WORKLOADS for kind in kinds)]
    own = [sys.executable, str(Path(__file__).resolve()), f"--out={given.out}", *(["--tiny"] if given.tiny else [])]
    commands = {
        name: [*own, f"--contender={name}"]
        for name in names
        if name not in known and (name == PEAK or given.only in name)
    }
    for matrix_px in sorted(
        {(workload.tiny() if given.tiny else workload).matrix_px for workload in WORKLOADS.values()}
    ):
        make_data(given.out / f"data-{matrix_px}", matrix_px)
    part = given.out / f"{RESULTS}.part"
    part.write_text("".join(f"{json.dumps(line)}\n" for line in known.values()))
    part.replace(given.out / RESULTS)
    with (given.out / RESULTS).open("a") as file:
        for line in run(commands, folder=given.out, limit_s=given.limit_s, ends_at=ends_at):
            line["about"] = about
            print(json.dumps(line), file=file, flush=True)
            print(said(line), flush=True)
            known[line["contender"]] = line
            if line["contender"] == PEAK and "problem" in line:
                return 2  # Without a device there is nothing to compare.
    print(f"\n{table(known)}")
    return 0


def read_results(folder: Path, about: str) -> dict[str, dict[str, Any]]:
    """What a run of the same command has measured, by contender; what failed is left out.

    Raises:
      ValueError: another machine or version measured it.
    """
    path = folder / RESULTS
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for line in lines:
        if line["about"] != about:
            raise ValueError(f"{path} was measured on {line['about']}, and this is {about}; name another --out")
    return {line["contender"]: line for line in lines if "problem" not in line}


def make_data(data: Path, matrix_px: int) -> None:
    """Three phantom scans, one of each split, prepared; nothing where the folder is there."""
    from lungjax.preparation import phantom, run

    if not data.exists():
        with tempfile.TemporaryDirectory(dir=data.parent) as folder:
            dicom, prepared = Path(folder) / "dicom", Path(folder) / "prepared"
            phantom.write(dicom, scans=3, seed=0, matrix=matrix_px)
            run.prepare(dicom, prepared, format="lidc")
            prepared.rename(data)


def run(commands: dict[str, list[str]], *, folder: Path, limit_s: float, ends_at: float) -> Iterator[dict[str, Any]]:
    """Runs commands one after the other; of each, the object that its last line of output is, or its `problem`.

    A command starts while the one before it runs, and waits for a line on its standard input before it begins.

    Args:
      commands: by the contender's name.
      folder: for what they say on stderr.
      limit_s: of each.
      ends_at: of all, by `time.monotonic`.
    """
    with contextlib.ExitStack() as stack:

        def start(name: str) -> tuple[subprocess.Popen[str], Path]:
            log = folder / f"{''.join(c if c.isalnum() else '-' for c in name)}.log"
            process = subprocess.Popen(
                commands[name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stack.enter_context(log.open("w")),
                text=True,
                start_new_session=True,
            )
            stack.callback(_end, process)
            return process, log

        waiting = [*commands]
        upcoming = start(waiting[0]) if waiting else None
        while waiting and upcoming:
            (process, log), name = upcoming, waiting.pop(0)
            left_s = ends_at - time.monotonic()
            upcoming = start(waiting[0]) if waiting and left_s > 0 else None
            yield {"contender": name, **_result(process, log, limit_s=limit_s, left_s=left_s)}
        yield from ({"contender": name, "problem": "not begun: the time of all was over"} for name in waiting)


def _result(process: subprocess.Popen[str], log: Path, *, limit_s: float, left_s: float) -> dict[str, Any]:
    if left_s <= 0:
        _end(process)
        return {"problem": "not begun: the time of all was over"}
    began = time.monotonic()
    try:
        output, _ = process.communicate("go\n", timeout=min(limit_s, left_s))
    except subprocess.TimeoutExpired:
        _end(process)
        whose = (
            f"its limit of {limit_s:g} s" if limit_s <= left_s else f"what was left of the time of all, {left_s:.0f} s"
        )
        return {"problem": f"ended: it took longer than {whose}"}
    with contextlib.suppress(json.JSONDecodeError, IndexError):
        result = json.loads(output.splitlines()[-1])
        if process.returncode == 0 and isinstance(result, dict):
            return {**result, "process_s": round(time.monotonic() - began, 1)}
    last = next((line for line in reversed(log.read_text().splitlines()) if line.strip()), "it said nothing")
    return {"problem": f"failed with exit code {process.returncode}: {last.strip()[:300]}; see {log}"}


def _end(process: subprocess.Popen[str]) -> None:
    """Ends a process and those that it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with contextlib.suppress(OSError):
                pipe.close()


# What follows is done in the process of a contender.


def contend(name: str, folder: Path, *, tiny: bool) -> int:
    """Prints a line of JSON."""
    workload_name, _, kind = name.rpartition(": ")
    if name == PEAK:
        measure = functools.partial(peak, tiny=tiny)
    else:
        workload = WORKLOADS[workload_name].tiny() if tiny else WORKLOADS[workload_name]
        measure = functools.partial(theirs if kind in TORCH else ours, workload, kind, folder)
    importlib.import_module("torch" if kind in TORCH else "lungjax.train.loop")
    if not sys.stdin.readline():
        return 1  # Whoever started this has ended.
    print(json.dumps(measure()))
    return 0


def peak(*, tiny: bool) -> dict[str, Any]:
    """Rates of bfloat16 matrix products, in FLOP/s, and of a copy, in bytes read and written a second."""
    import jax
    import jax.numpy as jnp

    device = jax.devices()[0]
    if device.platform != "gpu" and not tiny:
        sys.exit("JAX finds no GPU here; --tiny tries this benchmark on a CPU.")
    side, size = (256, 2**20) if tiny else (8192, 2**28)
    multiply, negate = jax.jit(lambda a, b: a @ b), jax.jit(lambda x: -x)
    b = jax.random.normal(jax.random.key(0), (side, side), jnp.bfloat16) / math.sqrt(side)

    def seconds(function: Callable[[Any], Any], x: Any) -> float:
        times = []
        for _ in range(WINDOWS + 1):  # The first one warms up.
            jax.block_until_ready(x)
            began = time.perf_counter()
            for _ in range(20):
                x = function(x)
            jax.block_until_ready(x)
            times.append((time.perf_counter() - began) / 20)
        return statistics.median(times[1:])

    return {
        "device": device.device_kind,
        "platform": device.platform,
        "flops_per_s": 2 * side**3 / seconds(lambda a: multiply(a, b), b),
        "bytes_per_s": 2 * 4 * size / seconds(negate, jnp.ones(size, jnp.float32)),
    }


def ours(workload: Workload, kind: str, folder: Path) -> dict[str, Any]:
    """The trainer, ended after some windows."""
    import jax

    from lungjax import main as trainer

    config = workload.read()
    from_device = kind == DEVICE
    never = 10**6
    changes = {
        **workload.changes,
        "data.path": folder / f"data-{workload.matrix_px}",
        "data.placement": "device" if from_device else "host",
        "steps_per_dispatch": workload.at_once if from_device else 1,
        "log_every": workload.window,
        **dict.fromkeys(("steps", "eval_every", "checkpoint_every"), never),
    }
    with tempfile.TemporaryDirectory(dir=folder) as workdir:
        log = Path(workdir) / "metrics.jsonl"
        threading.Thread(target=_stop_after, args=(log, WINDOWS + 2), daemon=True).start()
        # ml_collections looks for changes to a configuration there.
        sys.argv = ["main", f"--config={workload.config}", f"--workdir={workdir}"]
        sys.argv += [f"--config.{key}={value}" for key, value in changes.items()]
        code = trainer.main()
        if code:
            sys.exit(code)
        # The first window compiles, and the second one begins while the first steps wait for the device.
        rates = [json.loads(line)["steps_per_s"] for line in log.read_text().splitlines()][2:]
    if not rates:
        sys.exit("it was stopped before any steps were timed")
    found = {"ms": 1e3 / statistics.median(rates), **described(config, workload)}
    if not from_device:
        found["augmentation_ms"] = augmentation_ms(config, workload)
    memory = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return {**found, "memory_bytes": memory}


def _stop_after(log: Path, lines: int) -> None:
    while not log.exists() or log.read_text().count("\n") < lines:
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)


def described(config: Any, workload: Workload) -> dict[str, Any]:
    """Batch, side, parameters and FLOPs of a step."""
    import jax
    import jax.numpy as jnp

    from lungjax.tasks import pretrain, segment
    from lungjax.train import state

    views = 2 if config.task == "pretrain" else 1
    model: Any = (pretrain if views == 2 else segment).network(config)
    side_px = config.data.crop_px or workload.matrix_px
    images = jax.ShapeDtypeStruct((views * config.data.batch_size, side_px, side_px, 1), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=True), images)
    forward = jax.make_jaxpr(lambda variables, x: model.apply(variables, x, train=True))(variables, images)
    return {
        "batch": config.data.batch_size,
        "side_px": side_px,
        "parameters": state.parameter_count(variables),
        "flops": 3 * product_flops(forward.jaxpr),
    }


def product_flops(jaxpr: Any) -> int:
    """FLOPs of the convolutions and matrix products in a jaxpr, as if each read its whole kernel everywhere."""
    flops = 0
    for equation in jaxpr.eqns:
        shapes = [variable.aval.shape for variable in (*equation.invars[:2], *equation.outvars)]
        if equation.primitive.name == "conv_general_dilated":
            kernel = equation.params["dimension_numbers"].rhs_spec
            flops += 2 * math.prod(shapes[-1]) * math.prod(shapes[1]) // shapes[1][kernel[0]]
        elif equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            flops += 2 * math.prod(shapes[-1]) * math.prod(shapes[0][axis] for axis in contracted)
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            flops += product_flops(inner) if hasattr(inner, "eqns") else 0
    return flops


def augmentation_ms(config: Any, workload: Workload) -> float:
    """Milliseconds of a batch's augmentation alone."""
    import jax
    import jax.numpy as jnp

    from lungjax.data import augment

    side_px = config.data.crop_px or workload.matrix_px
    hu = jnp.zeros((config.data.batch_size, side_px, side_px), jnp.int16)
    if config.task == "pretrain":
        moved, arrays = augment.make_views(intensity="hu", **config.augment), (hu,)
    else:
        moved, arrays = augment.make_segment(intensity="hu", **config.augment), (hu, hu.astype(jnp.uint8))
    moved, key = jax.jit(moved), jax.random.key(0)

    def steps() -> None:
        jax.block_until_ready([moved(key, *arrays) for _ in range(workload.window)])

    return _median_ms(steps, workload.window)


def _median_ms(steps: Callable[[], None], window: int) -> float:
    """Milliseconds a step; `steps` does a window of them, and waits."""
    times = []
    for _ in range(WINDOWS + 1):  # The first one warms up.
        began = time.perf_counter()
        steps()
        times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times[1:]) / window


def theirs(workload: Workload, kind: str, folder: Path) -> dict[str, Any]:
    """The same network in PyTorch."""
    import torch
    import torch_networks as networks

    on_gpu = json.loads((folder / RESULTS).read_text().splitlines()[0])["platform"] == "gpu"
    if on_gpu and not torch.cuda.is_available():
        sys.exit("this PyTorch finds no GPU; install one for CUDA.")
    device = torch.device("cuda" if on_gpu else "cpu")
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")  # TF32, as JAX does.
    torch.backends.cudnn.benchmark = True
    config = workload.read()
    pretrains = config.task == "pretrain"
    side_px, images = config.data.crop_px or workload.matrix_px, config.data.batch_size * (2 if pretrains else 1)
    network: Any = torch_network(config).to(device=device, memory_format=torch.channels_last)
    levels = networks.LEVELS if config.get("targets") == "levels" else 1
    image = torch.rand(images, 1, side_px, side_px, device=device).contiguous(memory_format=torch.channels_last)
    target = (torch.rand(images, *(levels,) * (levels > 1), side_px, side_px, device=device) < 0.01).float()

    def loss_of(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        outputs = network(image).float()
        if pretrains:
            return networks.ntxent(outputs, config.temperature)
        return (networks.levels_loss if levels > 1 else networks.segment_loss)(outputs, target)

    half = torch.autocast(device.type, torch.bfloat16, enabled=config.compute_dtype == "bfloat16")
    flops = 3 * images * torch_forward_flops(network, image[:1])
    objective: Any = torch.compile(loss_of, **TORCH[kind]) if TORCH[kind] else loss_of
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=config.optimizer.weight_decay, fused=True)

    def steps() -> None:
        for _ in range(workload.window):
            if TORCH[kind]:
                torch.compiler.cudagraph_mark_step_begin()
            optimizer.zero_grad(set_to_none=True)
            with half:
                loss = objective(image, target)
            loss.backward()
            optimizer.step()
        if on_gpu:
            torch.cuda.synchronize()

    return {
        "ms": _median_ms(steps, workload.window),
        "batch": config.data.batch_size,
        "side_px": side_px,
        "parameters": sum(p.numel() for p in network.parameters()),
        "flops": flops,
        "memory_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
    }


def torch_network(config: Any) -> Any:
    """The network of a configuration in PyTorch."""
    import torch_networks as networks

    size = {name: value for name, value in config.model.encoder.items() if name != "norm"}
    if config.task == "pretrain":
        return networks.SimCLR(hidden=config.model.projection_hidden, out=config.model.projection_out, **size)
    levels = networks.LEVELS if config.targets == "levels" else 1
    return networks.UNet(widths=config.model.decoder, out_channels=levels, **size)


def torch_forward_flops(network: Any, image: Any) -> int:
    """FLOPs of the products in a forward pass, as PyTorch counts them."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return counter.get_total_flops()


# What is printed.


def said(line: dict[str, Any]) -> str:
    """A result as it comes."""
    if "problem" in line:
        return f"{line['contender']}: {line['problem']}"
    if line["contender"] == PEAK:
        tflops, gbytes = line["flops_per_s"] / 1e12, line["bytes_per_s"] / 1e9
        return f"{line['device']}: bfloat16 matrix products {tflops:.3g} TFLOP/s, copies {gbytes:.4g} GB/s"
    return f"{line['contender']}: {line['ms']:.4g} ms a step, after {line['process_s']:.0f} s"


def table(known: dict[str, dict[str, Any]]) -> str:
    """All results; for PyTorch's, how many times its time a step is ours."""
    top = known.get(PEAK, {})
    rows = [f"{top.get('about', '')}\n{said(top)}"] if "flops_per_s" in top else []
    for workload in WORKLOADS:
        lines = {name: line for name, line in known.items() if name.rpartition(": ")[0] == workload}
        if not lines:
            continue
        measured = next((line for line in lines.values() if "ms" in line), None)
        size = (
            ""
            if measured is None
            else (
                f", batch {measured['batch']} of {measured['side_px']} x {measured['side_px']}, "
                f"{measured['parameters'] / 1e6:.3g} M parameters, {measured['flops'] / 1e12:.3g} TFLOP a step"
            )
        )
        heads = ("ms a step", "images/s", "TFLOP/s", "of peak", "GiB", "/ host", "/ device")
        rows.append(f"\n{workload}{size}\n{'':30}" + "".join(f"{head:>11}" for head in heads))
        mine = [lines.get(f"{workload}: {kind}", {}).get("ms") for kind in (HOST, DEVICE)]
        for name, line in lines.items():
            kind = name.rpartition(": ")[2]
            if "problem" in line:
                rows.append(f"{kind:30}  {line['problem']}")
                continue
            rate, memory = line["flops"] / line["ms"] * 1e3, line["memory_bytes"]
            cells = [f"{line['ms']:.4g}", f"{line['batch'] / line['ms'] * 1e3:.4g}", f"{rate / 1e12:.3g}"]
            cells += [f"{rate / top['flops_per_s']:.1%}" if "flops_per_s" in top else "-"]
            cells += ["-" if memory is None else f"{memory / 2**30:.3g}"]
            cells += [f"{line['ms'] / ms:.2f}" if ms and kind in TORCH else "-" for ms in mine]
            rows.append(f"{kind:30}" + "".join(f"{cell:>11}" for cell in cells))
            if "augmentation_ms" in line:
                rows.append(f"{'  of which augmentation':30}{line['augmentation_ms']:>11.4g}")
    rows.append("\n/ host, / device: PyTorch's time a step, without augmentation, over ours, with it, fed from there.")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
