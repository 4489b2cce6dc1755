"""Answers by a folder of the format stablehlo: JAX alone."""

import json
import sys
from pathlib import Path

sys.modules["lungjax"] = None  # pyright: ignore[reportArgumentType]  # No import of it succeeds.

import numpy as np
from jax import export

folder, asked_file, said_file = map(Path, sys.argv[1:])
known = json.loads((folder / "config.json").read_text())
network = export.deserialize(bytearray((folder / "model.stablehlo").read_bytes()))
asked, said = np.load(asked_file), {}
for batch in sorted({name.split(".")[0] for name in asked}):
    outputs = network.call(*(asked[f"{batch}.{one['name']}"] for one in known["inputs"]))
    for one, output in zip(known["outputs"], outputs, strict=True):
        said[f"{batch}.{one['name']}"] = np.asarray(output)
np.savez(said_file, **said)
