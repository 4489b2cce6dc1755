"""Training steps on a CPU, ours against the same networks in PyTorch, in turns within one run.

    pip install -e .[bench]
    python scripts/bench_train.py [--threads 2] [--rounds 9] [--preset coarse]

One round takes one step of every contender, so that other work on the machine affects all of them. float32,
the same batch for all; PyTorch with channels_last. Without PyTorch only our own steps are timed. A step is loss,
gradients and Adam, without augmentation, whose cost is shown separately. Our steps and augmentation are compiled as the
trainer compiles them, and, as "default", without its options for the compiler (`lungjax.train.compiler`). Each has wall
time and, in brackets, processor time, which suffers less from other work on the machine.
"""

# PyTorch is an extra.
# pyright: reportMissingImports=false
from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

from lungjax import platforms

BATCH, SIDE_PX, TEMPERATURE, LEARNING_RATE = 32, 128, 0.2, 1e-3
HIDDEN, OUT = 256, 64
PRESETS = {
    "fine": {"depth": 10, "width": 16, "stem": "patch", "patch_px": 2, "widths": (64, 32, 16)},
    "coarse": {"depth": 10, "width": 32, "stem": "patch", "patch_px": 4, "widths": (128, 64, 32)},
    "deep": {"depth": 18, "width": 32, "stem": "patch", "patch_px": 4, "widths": (128, 64, 32)},
}
"""Half resolution in 0.5 M parameters; quarter resolution in 2.0 M and 3.6 M: less time for more parameters."""
Contenders = dict[str, Callable[[], None]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="cores that both sides get")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--preset", choices=PRESETS, default="fine", help="size of the network")
    options = parser.parse_args()
    try:
        threads = platforms.bind_to_cores(options.threads)  # Before JAX starts, which takes every core it may.
    except OSError as error:
        parser.error(str(error))

    preset = PRESETS[options.preset]
    contenders = ours(preset)
    if importlib.util.find_spec("torch"):
        contenders |= theirs(preset, threads=threads)
    else:
        print("PyTorch is not installed (pip install torch==2.13.0): our steps only.")
    print(f"{describe()}, {threads} threads; {options.preset}: {preset}; batch {BATCH} of {SIDE_PX}x{SIDE_PX}")
    busy = os.getloadavg()[0]
    if busy > 1:
        print(
            f"Load {busy:.1f}: others compute here. OpenMP's waiting threads then slow PyTorch most; see --threads 1."
        )
    report(*measure(contenders, options.rounds))


def measure(contenders: Contenders, rounds: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of each contender's steps, and its processor's, all taking turns; a first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    processor: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, step in contenders.items():
            start, began = time.perf_counter(), time.process_time()
            step()
            if turn:
                seconds[name].append(time.perf_counter() - start)
                processor[name].append(time.process_time() - began)
    return seconds, processor


def report(seconds: dict[str, list[float]], processor: dict[str, list[float]]) -> None:
    """Median and least milliseconds; for pairs the median ratio within a round, above 1 where the first is ahead."""
    for name in seconds:
        median, least = ([1e3 * of(times[name]) for times in (seconds, processor)] for of in (statistics.median, min))
        print(f"{name:32s} median {median[0]:7.1f} ({median[1]:7.1f}) ms   least {least[0]:7.1f} ({least[1]:7.1f}) ms")
    for mine in ("lungjax U-Net", "lungjax SimCLR", "lungjax augment segment", "lungjax augment simclr"):
        ratios = [
            statistics.median(b / a for a, b in zip(times[mine], times[f"{mine}, default"], strict=True))
            for times in (seconds, processor)
        ]
        print(f"{mine}: {ratios[0]:.2f} ({ratios[1]:.2f}) times as fast as by default")
    pairs = (
        ("U-Net", "lungjax U-Net", "PyTorch U-Net"),
        ("SimCLR", "lungjax SimCLR", "PyTorch SimCLR"),
        ("against the plain U-Net", "lungjax U-Net", "PyTorch plain U-Net"),
    )
    for title, mine, other in pairs:
        if other in seconds:
            ratios = [b / a for a, b in zip(seconds[mine], seconds[other], strict=True)]
            print(f"{title}: {statistics.median(ratios):.2f} times as fast as PyTorch")
    for task in ("segment", "simclr"):
        step = seconds["lungjax U-Net" if task == "segment" else "lungjax SimCLR"]
        share = statistics.median(seconds[f"lungjax augment {task}"]) / statistics.median(step)
        print(f"augmentation of {task}: {share:.1%} of a step")


def describe() -> str:
    """Processor and versions."""
    packages = [name for name in ("jax", "torch") if importlib.util.find_spec(name)]
    versions = [f"{name} {importlib.metadata.version(name)}" for name in packages]
    try:
        with open("/proc/cpuinfo") as lines:
            cpu = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.machine()
    return ", ".join([cpu, f"Python {platform.python_version()}", *versions])


def ours(preset: dict[str, Any]) -> Contenders:
    """Our steps, jitted and with donated state, and the augmentations alone."""
    import jax
    import jax.numpy as jnp

    from lungjax import losses
    from lungjax.data import augment
    from lungjax.models.encoder import ResNet
    from lungjax.models.heads import Projection
    from lungjax.models.unet import UNet
    from lungjax.train import compiler, mesh

    encoder = ResNet(**{name: value for name, value in preset.items() if name != "widths"})
    unet, head = UNet(encoder=encoder, widths=preset["widths"]), Projection(hidden=HIDDEN, out=OUT)
    keys = jax.random.split(jax.random.key(0), 4)
    image = jax.random.uniform(keys[0], (BATCH, SIDE_PX, SIDE_PX, 1))
    views = jax.random.uniform(keys[1], (2 * BATCH, SIDE_PX, SIDE_PX, 1))
    target = (jax.random.uniform(keys[2], (BATCH, SIDE_PX, SIDE_PX)) < 0.01).astype(jnp.float32)
    weights = jnp.ones(BATCH)

    def segment_loss(params):
        logits: Any = unet.apply({"params": params}, image, train=True)
        arrays = {"logits": logits[..., 0], "targets": target, "weights": weights}
        return losses.binary_cross_entropy(**arrays) + losses.dice_loss(**arrays)

    def simclr_loss(params):
        features: Any = encoder.apply({"params": params["encoder"]}, views, train=True)
        z: Any = head.apply({"params": params["head"]}, features[-1].mean(axis=(1, 2)))
        a, b = jnp.split(z, 2)
        return losses.ntxent(embeddings_a=a, embeddings_b=b, temperature=TEMPERATURE)[0]

    def init():
        channels = 8 * preset["width"]
        return (
            unet.init(keys[3], image[:1], train=True)["params"],
            {
                "encoder": encoder.init(keys[3], image[:1], train=True)["params"],
                "head": head.init(keys[3], jnp.zeros((1, channels)))["params"],
            },
        )

    for_segment, for_simclr = jax.jit(init)()
    hu = (1500 * image[..., 0] - 1350).astype(jnp.int16)
    bits = target.astype(jnp.uint8)
    contenders: Contenders = {}
    for name, compiled_by in (("", compiler.train_options(mesh.make_mesh(1))), (", default", None)):
        moved = jax.jit(augment.make_segment(intensity="hu"), compiler_options=compiled_by)
        two = jax.jit(augment.make_views(intensity="hu"), compiler_options=compiled_by)
        contenders |= {
            f"lungjax U-Net{name}": _jax_step(segment_loss, for_segment, compiled_by),
            f"lungjax SimCLR{name}": _jax_step(simclr_loss, for_simclr, compiled_by),
            f"lungjax augment segment{name}": lambda moved=moved: _wait(moved(keys[0], hu, bits)),
            f"lungjax augment simclr{name}": lambda two=two: _wait(two(keys[0], hu)),
        }
    return contenders


def _wait(arrays: tuple[Any, ...]) -> None:
    for array in arrays:
        array.block_until_ready()


def _jax_step(loss_of: Callable[[Any], Any], params: Any, compiled_by: dict[str, str] | None) -> Callable[[], None]:
    import jax
    import jax.numpy as jnp
    import optax

    optimizer = optax.adam(LEARNING_RATE)

    def step(params, opt_state):
        loss, grads = jax.value_and_grad(loss_of)(params)
        updates, opt_state = optimizer.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state, loss

    jitted = jax.jit(step, donate_argnums=(0, 1), compiler_options=compiled_by)
    state = [jax.tree.map(jnp.copy, params), optimizer.init(params)]  # A step takes away what it is given.

    def run() -> None:
        *state[:], loss = jitted(*state)
        loss.block_until_ready()

    return run


def theirs(preset: dict[str, Any], *, threads: int) -> Contenders:
    """The same in PyTorch."""
    import torch
    import torch_networks as networks

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    channels_last = torch.channels_last
    image = torch.rand(BATCH, 1, SIDE_PX, SIDE_PX).contiguous(memory_format=channels_last)
    views = torch.rand(2 * BATCH, 1, SIDE_PX, SIDE_PX).contiguous(memory_format=channels_last)
    target = (torch.rand(BATCH, SIDE_PX, SIDE_PX) < 0.01).float()

    def segment_loss(network):
        return networks.segment_loss(network(image), target)

    def simclr_loss(network):
        return networks.ntxent(network(views), TEMPERATURE)

    def step_of(network, loss_of):
        network = network.to(memory_format=channels_last)
        optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)

        def run() -> None:
            optimizer.zero_grad(set_to_none=True)
            loss_of(network).backward()
            optimizer.step()

        return run

    size = {name: value for name, value in preset.items() if name != "widths"}
    return {
        "PyTorch U-Net": step_of(networks.UNet(widths=preset["widths"], **size), segment_loss),
        "PyTorch SimCLR": step_of(networks.SimCLR(hidden=HIDDEN, out=OUT, **size), simclr_loss),
        "PyTorch plain U-Net": step_of(networks.PlainUNet(), segment_loss),
    }


if __name__ == "__main__":
    main()
