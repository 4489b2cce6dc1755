"""Runs a folder of the format stablehlo with JAX alone."""

import json
import sys
from pathlib import Path

sys.modules["lungjax"] = None  # pyright: ignore[reportArgumentType]  # It cannot be imported.

import numpy as np
from jax import export

folder, input_file, output_file = map(Path, sys.argv[1:])
description = json.loads((folder / "config.json").read_text())
network = export.deserialize(bytearray((folder / "model.stablehlo").read_bytes()))
inputs, outputs = np.load(input_file), {}
for batch in sorted({name.split(".")[0] for name in inputs}):
    arrays = network.call(*(inputs[f"{batch}.{spec['name']}"] for spec in description["inputs"]))
    for spec, array in zip(description["outputs"], arrays, strict=True):
        outputs[f"{batch}.{spec['name']}"] = np.asarray(array)
np.savez(output_file, **outputs)
