#!/usr/bin/env bash
# A bit that flips in the arrays of an Orbax checkpoint is read as another value, without a word.
#
# Versions:  orbax-checkpoint 0.12.8, tensorstore 0.1.86, jax 0.10.2.
# Behaviour: arrays are stored as Zarr 3, compressed by Zstandard without a checksum, and without Zarr's CRC-32C codec.
#            Zstandard keeps what it cannot compress, as random weights are, as it is. So of single bits flipped in the data
#            file all are read as another value; the checksums of OCDBT guard its directory, not the arrays.
# Seen:      32 flips: 32 read with another value, 0 refused
#
# Needs Python 3.11 to 3.13 (PYTHON=... chooses it) and a package index. Exits non-zero when this has changed.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    jax==0.10.2 jaxlib==0.10.2 orbax-checkpoint==0.12.8 tensorstore==0.1.86
"$folder/venv/bin/python" - "$folder/checkpoint" <<'PYTHON'
import pathlib
import sys

import numpy as np
from orbax.checkpoint import v1 as ocp

path = pathlib.Path(sys.argv[1])
weights = {"kernel": np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32)}
ocp.save(path, weights)
largest = max((file for file in path.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
whole = largest.read_bytes()
changed = refused = 0
for place in range(len(whole) // 64, len(whole), len(whole) // 33)[:32]:
    flipped = bytearray(whole)
    flipped[place] ^= 1
    largest.write_bytes(flipped)
    try:
        read = ocp.load(path, {"kernel": np.empty((512, 512), np.float32)})["kernel"]
        changed += not np.array_equal(read, weights["kernel"])
    except Exception:
        refused += 1
print(f"32 flips: {changed} read with another value, {refused} refused")
assert (changed, refused) == (32, 0), "it has changed"
PYTHON
