"""Runs a folder of the format onnx with ONNX Runtime and NumPy, without JAX."""

import sys
from pathlib import Path

for package in ("lungjax", "jax", "flax"):
    sys.modules[package] = None  # pyright: ignore[reportArgumentType]  # It cannot be imported.

import numpy as np
import onnxruntime

folder, input_file, output_file = map(Path, sys.argv[1:])
session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
names = [output.name for output in session.get_outputs()]
inputs, outputs = np.load(input_file), {}
for batch in sorted({name.split(".")[0] for name in inputs}):
    arrays = session.run(names, {x.name: inputs[f"{batch}.{x.name}"] for x in session.get_inputs()})
    outputs |= {f"{batch}.{name}": array for name, array in zip(names, arrays, strict=True)}
np.savez(output_file, **outputs)
