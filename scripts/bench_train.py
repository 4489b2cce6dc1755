"""Training steps, ours against the same networks in PyTorch, in turns within one run, on a GPU where JAX has one.

    pip install -e .[bench]
    python scripts/bench_train.py [--threads 2] [--rounds 9] [--preset coarse]
    python scripts/bench_train.py --preset full --dtype bfloat16 --steps 10  # on a GPU

One round takes a few steps of every contender, so that whatever else the machine does falls on all of them. The same
batch for all, parameters in float32; PyTorch with channels_last, on a GPU with TF32 as JAX has it, with cuDNN's
benchmarks, and once more through torch.compile. Without PyTorch only our own steps are timed. A step is loss,
gradients and Adam, without augmentation, whose cost is shown beside it.
"""

# PyTorch is an extra.
# pyright: reportMissingImports=false
from __future__ import annotations

import argparse
import functools
import importlib.metadata
import importlib.util
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

TEMPERATURE, LEARNING_RATE = 0.2, 1e-3
HIDDEN, OUT = 256, 64


class Preset(NamedTuple):
    """Size of the network and of its batch."""

    encoder: dict[str, Any]
    widths: tuple[int, ...]
    batch: int = 32
    side_px: int = 128


PRESETS = {
    "fine": Preset({"depth": 10, "width": 16, "stem": "patch", "patch_px": 2}, (64, 32, 16)),
    "coarse": Preset({"depth": 10, "width": 32, "stem": "patch", "patch_px": 4}, (128, 64, 32)),
    "deep": Preset({"depth": 18, "width": 32, "stem": "patch", "patch_px": 4}, (128, 64, 32)),
    "full": Preset({"depth": 34, "width": 64, "stem": "patch", "patch_px": 2}, (256, 128, 64), 64, 256),
}
"""Half resolution in 0.5 M parameters; quarter resolution in 2.0 M and 3.6 M: less time for more parameters; and the
size of `configs/segment.py`, for a GPU."""
Contenders = dict[str, Callable[[], Callable[[], Any]]]
"""Each starts one step, and returns what waits for its end."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="cores that both sides get")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--steps", type=int, default=1, help="steps of each contender in a round, waited for at its end"
    )
    parser.add_argument("--preset", choices=PRESETS, default="fine", help="size of the network and of its batch")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the computation")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[: options.threads]
    os.sched_setaffinity(0, cores)  # Before JAX starts, which takes every core it may.

    preset = PRESETS[options.preset]
    contenders = ours(preset, dtype=options.dtype)
    gpu = gpu_name()
    if importlib.util.find_spec("torch"):
        contenders |= theirs(preset, dtype=options.dtype, threads=len(cores), gpu=bool(gpu))
    else:
        print("PyTorch is not installed (pip install torch==2.13.0): our steps only.")
    print(f"{describe()}, {gpu or f'{len(cores)} threads'}; {options.preset}, {options.dtype}: {preset}")
    busy = os.getloadavg()[0]
    if busy > 1 and not gpu:
        print(
            f"Load {busy:.1f}: others compute here. OpenMP's waiting threads then slow PyTorch most; see --threads 1."
        )
    report(measure(contenders, options.rounds, options.steps))


def measure(contenders: Contenders, rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds of one step of each contender, all taking turns; a first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, step in contenders.items():
            start = time.perf_counter()
            waits = [step() for _ in range(steps)]
            waits[-1]()
            if turn:
                seconds[name].append((time.perf_counter() - start) / steps)
    return seconds


def report(seconds: dict[str, list[float]]) -> None:
    """Median and least milliseconds; for pairs the median ratio within a round, above 1 where we are ahead."""
    for name, values in seconds.items():
        print(f"{name:28s} median {1e3 * statistics.median(values):8.1f} ms   least {1e3 * min(values):8.1f} ms")
    pairs = (
        ("U-Net", "lungjax U-Net", "PyTorch U-Net"),
        ("SimCLR", "lungjax SimCLR", "PyTorch SimCLR"),
        ("against the plain U-Net", "lungjax U-Net", "PyTorch plain U-Net"),
        ("U-Net, torch.compile", "lungjax U-Net", "PyTorch compiled U-Net"),
        ("SimCLR, torch.compile", "lungjax SimCLR", "PyTorch compiled SimCLR"),
    )
    for title, mine, other in pairs:
        if other in seconds:
            ratios = [b / a for a, b in zip(seconds[mine], seconds[other], strict=True)]
            print(f"{title}: {statistics.median(ratios):.2f}x PyTorch's speed")
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


def gpu_name() -> str:
    """Of the GPU that JAX computes on, empty if it has none."""
    import jax

    return jax.devices()[0].device_kind if jax.default_backend() == "gpu" else ""


def ours(preset: Preset, *, dtype: str) -> Contenders:
    """Our steps, jitted and with donated state, and the augmentations alone."""
    import jax
    import jax.numpy as jnp

    from lungjax import losses
    from lungjax.data import augment
    from lungjax.models.encoder import ResNet
    from lungjax.models.heads import Projection
    from lungjax.models.unet import UNet

    encoder = ResNet(**preset.encoder, dtype=jnp.dtype(dtype))
    unet = UNet(encoder=encoder, widths=preset.widths, dtype=jnp.dtype(dtype))
    head = Projection(hidden=HIDDEN, out=OUT)
    keys = jax.random.split(jax.random.key(0), 4)
    shape = (preset.batch, preset.side_px, preset.side_px)
    image = jax.random.uniform(keys[0], (*shape, 1))
    views = jax.random.uniform(keys[1], (2 * preset.batch, *shape[1:], 1))
    target = (jax.random.uniform(keys[2], shape) < 0.01).astype(jnp.float32)
    weights = jnp.ones(preset.batch)

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
        channels = 8 * encoder.width
        return (
            unet.init(keys[3], image[:1], train=True)["params"],
            {
                "encoder": encoder.init(keys[3], image[:1], train=True)["params"],
                "head": head.init(keys[3], jnp.zeros((1, channels)))["params"],
            },
        )

    for_segment, for_simclr = jax.jit(init)()
    hu = (1500 * image[..., 0] - 1350).astype(jnp.int16)
    moved, two = jax.jit(augment.make_segment(intensity="hu")), jax.jit(augment.make_views(intensity="hu"))
    bits = target.astype(jnp.uint8)
    return {
        "lungjax U-Net": _jax_step(segment_loss, for_segment),
        "lungjax SimCLR": _jax_step(simclr_loss, for_simclr),
        "lungjax augment segment": lambda: _waiting(moved(keys[0], hu, bits)),
        "lungjax augment simclr": lambda: _waiting(two(keys[0], hu)),
    }


def _waiting(arrays: Any) -> Callable[[], Any]:
    import jax

    return functools.partial(jax.block_until_ready, arrays)


def _jax_step(loss_of: Callable[[Any], Any], params: Any) -> Callable[[], Callable[[], Any]]:
    import jax
    import optax

    optimizer = optax.adam(LEARNING_RATE)

    def step(params, opt_state):
        loss, grads = jax.value_and_grad(loss_of)(params)
        updates, opt_state = optimizer.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state, loss

    jitted = jax.jit(step, donate_argnums=(0, 1))
    state = [params, optimizer.init(params)]

    def run() -> Callable[[], Any]:
        *state[:], loss = jitted(*state)
        return _waiting(loss)

    return run


def theirs(preset: Preset, *, dtype: str, threads: int, gpu: bool) -> Contenders:
    """The same in PyTorch."""
    import torch
    import torch_networks as networks
    from torch.nn import functional

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")  # TF32, for cuDNN allows it already.
    torch.backends.cudnn.benchmark = True
    device = torch.device("cuda" if gpu else "cpu")
    torch.set_default_device(device)
    channels_last = torch.channels_last
    batch, side_px = preset.batch, preset.side_px
    image = torch.rand(batch, 1, side_px, side_px).contiguous(memory_format=channels_last)
    views = torch.rand(2 * batch, 1, side_px, side_px).contiguous(memory_format=channels_last)
    target = (torch.rand(batch, side_px, side_px) < 0.01).float()
    positive = torch.arange(2 * batch).roll(batch)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16")

    def segment_loss(network):
        logits = network(image).float()
        p = torch.sigmoid(logits)
        dice = (2 * (p * target).sum() + 1) / ((p + target).sum() + 1)
        return functional.binary_cross_entropy_with_logits(logits, target) + 1 - dice

    def simclr_loss(network):
        z = functional.normalize(network(views).float())
        logits = (z @ z.T / TEMPERATURE).fill_diagonal_(-torch.inf)
        return functional.cross_entropy(logits, positive)

    def step_of(network, loss_of):
        network = network.to(memory_format=channels_last)
        optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)

        def run() -> Callable[[], Any]:
            optimizer.zero_grad(set_to_none=True)
            with autocast:
                loss = loss_of(network)
            loss.backward()
            optimizer.step()
            return torch.cuda.synchronize if gpu else bool  # A CPU has already done it.

        return run

    def unet() -> torch.nn.Module:
        return networks.UNet(widths=preset.widths, **preset.encoder)

    def simclr() -> torch.nn.Module:
        return networks.SimCLR(hidden=HIDDEN, out=OUT, **preset.encoder)

    contenders = {
        "PyTorch U-Net": step_of(unet(), segment_loss),
        "PyTorch SimCLR": step_of(simclr(), simclr_loss),
        "PyTorch plain U-Net": step_of(networks.PlainUNet(), segment_loss),
    }
    if gpu:
        contenders |= {
            "PyTorch compiled U-Net": step_of(torch.compile(unet()), segment_loss),
            "PyTorch compiled SimCLR": step_of(torch.compile(simclr()), simclr_loss),
        }
    return contenders


if __name__ == "__main__":
    main()
