"""Answers by a folder of the format onnx: ONNX Runtime and NumPy, no JAX."""

import sys
from pathlib import Path

for package in ("lungjax", "jax", "flax"):
    sys.modules[package] = None  # pyright: ignore[reportArgumentType]  # No import of it succeeds.

import numpy as np
import onnxruntime

folder, asked_file, said_file = map(Path, sys.argv[1:])
session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
names = [output.name for output in session.get_outputs()]
asked, said = np.load(asked_file), {}
for batch in sorted({name.split(".")[0] for name in asked}):
    outputs = session.run(names, {one.name: asked[f"{batch}.{one.name}"] for one in session.get_inputs()})
    said |= {f"{batch}.{name}": output for name, output in zip(names, outputs, strict=True)}
np.savez(said_file, **said)
