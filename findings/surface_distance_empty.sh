#!/usr/bin/env bash
# surface-distance 0.1, the only release on PyPI, raises AttributeError for an empty mask under NumPy 2.
#
# Versions:  surface-distance 0.1, NumPy 2.4.6, SciPy 1.17.1.
# Behaviour: `compute_surface_distances` documents what empty masks give (infinite distances). Under NumPy 2 it raises
#            AttributeError as soon as either mask is empty, for it spells infinity `np.Inf`; masks that are not empty are
#            compared as ever. So it shows on the first case without a nodule and not before.
# Seen:      both masks: 0.0
#            no prediction: AttributeError: `np.Inf` was removed in the NumPy 2.0 release. Use `np.inf` instead.
#            no truth: AttributeError: `np.Inf` was removed in the NumPy 2.0 release. Use `np.inf` instead.
#
# Needs Python 3.11 or later (PYTHON=... chooses it) and a package index. Exits non-zero when this has changed.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    surface-distance==0.1 numpy==2.4.6 scipy==1.17.1
cat > "$folder/run.py" <<'EOF'
import numpy as np
import surface_distance

mask, empty = np.zeros((8, 8, 8), bool), np.zeros((8, 8, 8), bool)
mask[2:5, 2:5, 2:5] = True
said = []
for name, truth, prediction in (("both masks", mask, mask), ("no prediction", mask, empty), ("no truth", empty, mask)):
    try:
        distances = surface_distance.compute_surface_distances(truth, prediction, (2.5, 0.7, 0.7))
        said.append(str(float(surface_distance.compute_robust_hausdorff(distances, 95))))
    except AttributeError as error:
        said.append(f"AttributeError: {error}")
    print(f"{name}: {said[-1]}")
wanted = "AttributeError: `np.Inf` was removed in the NumPy 2.0 release. Use `np.inf` instead."
assert said == ["0.0", wanted, wanted], "changed"
EOF
cd "$folder"
venv/bin/python run.py
