"""Minutes to a validation Dice: `configs/segment.py:slices` against a plain PyTorch U-Net, in turns on the same cores.

    pip install -e .[bench]
    lungjax prepare --source lidc-slices.zip --out data/slices
    python scripts/bench_dice.py [--data data/slices] [--minutes 40] [--threads 2]

Both read the same shards, train on the same patients and are scored on the same third of the val slices, pooled Dice
against the majority. Each follows its own recipe: ours the configuration as it is; the plain U-Net of 1.9 M
parameters BatchNorm, BCE + Dice, flips and quarter turns, Adam at 1e-3 with one cycle over eight epochs, batch 32.
They take turns of some seconds, so that other work on the machine affects both; a contender's clock runs while
it trains, loading included, validation and compilation excluded.
"""

# PyTorch is an extra.
# pyright: reportMissingImports=false
from __future__ import annotations

import argparse
import dataclasses
import os
import runpy
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from bench_train import describe
from tqdm import tqdm

from lungjax import metrics, platforms

CONFIG = Path(__file__).parents[1] / "configs" / "segment.py"
TURN_S = 20.0
"""Seconds of training before the other's turn."""
SCORE_EVERY_S = 60.0
"""Seconds of a contender's clock between two validations."""
BATCH, EPOCHS, LEARNING_RATE = 32, 8, 1e-3
TARGETS = (0.5, 0.55, 0.6, 0.65, 0.68, 0.7, 0.72)


@dataclasses.dataclass
class Contender:
    """A training run in steps, its clock, and its scores so far as (minutes, steps, Dice)."""

    step: Callable[[], None]
    wait: Callable[[], None]
    dice: Callable[[], float]
    steps: int
    done: int = 0
    clock_s: float = 0.0
    scored_s: float = 0.0
    curve: list[tuple[float, int, float]] = dataclasses.field(default_factory=list)

    def turn(self) -> None:
        """Trains for `TURN_S`, then scores when due."""
        start = time.perf_counter()
        while time.perf_counter() - start < TURN_S and self.done < self.steps:
            self.step()
            self.done += 1
        self.wait()
        self.clock_s += time.perf_counter() - start
        if self.clock_s - self.scored_s >= SCORE_EVERY_S or self.done == self.steps:
            self.curve.append((self.clock_s / 60, self.done, self.dice()))
            self.scored_s = self.clock_s


class Data:
    """The slices both sides read: train batches without end, and a third of the val slices."""

    def __init__(self, path: Path):
        from lungjax.data import loader, shards

        self.dataset = shards.open_dataset(path)
        self.slices = loader.Slices(self.dataset, crop_px=0, crop_at="nodule")
        self.train_rows = loader.select_rows(self.dataset, split="train", slices="nodule")
        self.val_rows = loader.select_rows(self.dataset, split="val", slices="nodule")[::3]

    def train(self, batch_size: int) -> Iterator[Any]:
        from lungjax.data import loader

        return loader.train_batches(self.slices, self.train_rows, batch_size=batch_size, seed=0, workers=0)

    def dice(self, predict: Callable[[Any], np.ndarray]) -> float:
        """Pooled Dice of `predict`: a batch -> logits (batch, height, width)."""
        from lungjax.data import loader

        sums = np.zeros(4, np.int64)
        for batch in loader.eval_batches(self.slices, self.val_rows, batch_size=BATCH):
            real = batch["weight"] > 0
            truth = metrics.majority(batch["readers"][real])
            sums += metrics.confusion(predict(batch)[real] > 0, truth).sum(axis=0)
        return float(metrics.scores(sums)["dice"])


def ours(data: Data) -> Contender:
    """`configs/segment.py:slices`, with the steps of the training loop."""
    import jax

    from lungjax.tasks import segment
    from lungjax.train import mesh, state, step

    config = runpy.run_path(str(CONFIG))["get_config"]("slices")
    devices = mesh.make_mesh(config.data.batch_size)
    key = jax.random.key(config.seed)
    task = segment.make(config, intensity=data.dataset.intensity, readers=data.dataset.readers, mesh=devices)
    optimizer = step.make_optimizer(config.optimizer, config.steps)
    train_step = step.make_train_step(task, optimizer, devices, key, average_decay=config.average_decay)
    predict_step = step.make_predict_step(task, devices)
    batches = data.train(config.data.batch_size)
    first = mesh.to_devices(data.slices.batch(data.val_rows[: config.data.batch_size]), devices)
    fresh = jax.jit(
        lambda rng: state.create_state(task, optimizer, rng, first, averaged=True),
        out_shardings=mesh.replicated(devices),
    )
    current = [fresh(key)]
    train_step(fresh(key), first)  # Compiles; the clock does not run yet.

    def advance() -> None:
        current[0], _ = train_step(current[0], mesh.to_devices(next(batches), devices))

    def predict(batch: Any) -> np.ndarray:
        return np.asarray(predict_step(current[0], mesh.to_devices(batch, devices))["logit"])

    return Contender(
        step=advance,
        wait=lambda: jax.block_until_ready(current[0].step),
        dice=lambda: data.dice(predict),
        steps=config.steps,
    )


def theirs(data: Data, *, threads: int) -> Contender:
    """The plain U-Net in PyTorch, channels_last."""
    import torch
    import torch_networks as networks

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    chance = np.random.default_rng(0)
    network = networks.PlainUNet().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    steps = EPOCHS * (len(data.train_rows) // BATCH)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    batches = data.train(BATCH)

    def tensor(image: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(image.astype(np.float32)[:, None] / 255).to(memory_format=torch.channels_last)

    def turned(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        both = np.rot90(np.stack([image, mask]), int(chance.integers(4)), axes=(1, 2))
        return tuple(both[:, :, ::-1] if chance.integers(2) else both)

    def advance() -> None:
        batch = next(batches)
        masks = metrics.majority(batch["readers"]).astype(np.uint8)
        pairs = [turned(image, mask) for image, mask in zip(batch["image"], masks, strict=True)]
        target = torch.from_numpy(np.stack([mask for _, mask in pairs]).astype(np.float32))
        network.train()
        logits = network(tensor(np.stack([image for image, _ in pairs])))
        optimizer.zero_grad(set_to_none=True)
        networks.segment_loss(logits, target).backward()
        optimizer.step()
        cycle.step()

    def predict(batch: Any) -> np.ndarray:
        network.eval()
        with torch.inference_mode():
            return network(tensor(batch["image"])).numpy()

    return Contender(step=advance, wait=lambda: None, dice=lambda: data.dice(predict), steps=steps)


def report(contenders: dict[str, Contender]) -> None:
    """The curves, and the minutes at which each first reached the targets."""
    for name, run in contenders.items():
        print(f"\n{name}: {run.done} of {run.steps} steps in {run.clock_s / 60:.1f} min of its own")
        print("  minutes  step   val Dice")
        for minutes, step, dice in run.curve:
            print(f"  {minutes:7.1f} {step:6d}  {dice:.3f}")
    print(f"\n{'val Dice':>8} " + " ".join(f"{name:>20}" for name in contenders))
    for target in TARGETS:
        reached = [next((m for m, _, dice in run.curve if dice >= target), None) for run in contenders.values()]
        shown = " ".join(f"{'not reached' if m is None else f'{m:.1f} min':>20}" for m in reached)
        mine, other = reached
        ratio = f"  {other / mine:.1f}x as fast" if mine and other else ""
        print(f"{target:8.2f} {shown}{ratio}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/slices"))
    parser.add_argument("--minutes", type=float, default=40.0, help="each contender's clock ends here")
    parser.add_argument("--threads", type=int, default=2, help="cores that both sides get")
    options = parser.parse_args()
    try:
        threads = platforms.bind_to_cores(options.threads)  # Before JAX starts, which takes every core it may.
    except OSError as error:
        parser.error(str(error))
    print(f"{describe()}, {threads} threads, load {os.getloadavg()[0]:.1f} at the start")
    data = Data(options.data)
    contenders = {"lungjax": ours(data), "plain PyTorch U-Net": theirs(data, threads=threads)}
    limit_s = 60 * options.minutes
    with tqdm(total=2 * options.minutes, unit="min", disable=None) as progress:
        while running := [c for c in contenders.values() if c.clock_s < limit_s and c.done < c.steps]:
            for run in running:
                run.turn()
            progress.update(sum(c.clock_s for c in contenders.values()) / 60 - progress.n)
            latest = {name: f"{run.curve[-1][2]:.3f}" for name, run in contenders.items() if run.curve}
            progress.set_postfix(latest)
    report(contenders)


if __name__ == "__main__":
    main()
