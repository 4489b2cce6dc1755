"""Runs a folder of the format torchvision: the forward pass of torchvision's ResNet, written in NumPy."""

import sys
from pathlib import Path

for package in ("lungjax", "jax", "flax"):
    sys.modules[package] = None  # pyright: ignore[reportArgumentType]  # It cannot be imported.

import numpy as np
import safetensors.numpy


def windows(x, side, stride, pad, fill):
    """(batch, channels, height, width) -> (batch, channels, rows, columns, side, side)."""
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), constant_values=fill)
    return np.lib.stride_tricks.sliding_window_view(x, (side, side), axis=(2, 3))[:, :, ::stride, ::stride]


def conv(x, kernel, stride=1):
    side = kernel.shape[-1]
    return np.einsum("bcijyx,ocyx->boij", windows(x, side, stride, side // 2, 0), kernel, optimize=True)


def norm(x, weights, name):
    scale, shift, mean, var = (
        weights[f"{name}.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
    )
    return (x - mean) / np.sqrt(var + 1e-5) * scale + shift


def block(x, weights, name, stride):
    y, last = x, 3 if f"{name}.conv3.weight" in weights else 2
    for number in range(1, last + 1):
        at = stride if number == last - 1 else 1  # The 3x3 convolution of a bottleneck has the stride.
        y = norm(conv(y, weights[f"{name}.conv{number}.weight"], at), weights, f"{name}.bn{number}")
        y = np.maximum(y, 0) if number < last else y
    if f"{name}.downsample.0.weight" in weights:
        x = norm(conv(x, weights[f"{name}.downsample.0.weight"], stride), weights, f"{name}.downsample.1")
    return np.maximum(x + y, 0)


def features(x, weights):
    """(batch, channels of conv1, height, width) -> (batch, channels): what torchvision gives to `fc`."""
    x = np.maximum(norm(conv(x, weights["conv1.weight"], 2), weights, "bn1"), 0)
    x = windows(x, 3, 2, 1, -np.inf).max(axis=(4, 5))
    for name in sorted({name.rpartition(".conv1")[0] for name in weights if ".conv1." in name}):
        x = block(x, weights, name, 2 if name.endswith(".0") and not name.startswith("layer1") else 1)
    return x.mean(axis=(2, 3))


if __name__ == "__main__":
    folder, input_file, output_file = map(Path, sys.argv[1:])
    weights = safetensors.numpy.load((folder / "model.torchvision.safetensors").read_bytes())
    with np.load(input_file) as inputs:
        images = {name.split(".")[0]: inputs[name] for name in inputs}
    outputs = {  # A channel is added where there is none.
        f"{batch}.features": features(x.reshape(len(x), -1, *x.shape[-2:]), weights) for batch, x in images.items()
    }
    np.savez(output_file, **outputs)  # pyright: ignore[reportArgumentType]
