#!/usr/bin/env bash
# Wrote written_at_20a579c.tar.xz: one tiny folder of each kind that lungjax writes, as it was at the commit 20a579c.
#
#     git worktree add /before 20a579c
#     PYTHON=$PWD/.venv/bin/python bash tests/data/written_at_20a579c.sh /before /out
#
# With jax 0.10.2, flax 0.12.8 and Orbax 0.12.8. tests/test_written_before.py opens each with the lungjax of today. The
# archive is never changed or written anew: what opens today must open for ever, or be refused by a sentence that says
# which version made it.
set -euo pipefail
before="$(cd "$1" && pwd)"
mkdir -p "$2"
cd "$2"
export PYTHONPATH="$before:$before/tests:$before/tests/lidc:$before/tests/deploy" JAX_PLATFORMS=cpu
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

"$PYTHON" - "$work" <<'PYTHON'
import sys
from pathlib import Path

import patches
from conftest import write_kaggle_tree
from sources import write_scan

from lungjax.lidc import annotations

work = Path(sys.argv[1])
write_kaggle_tree(work / "slices", patients=12, side_px=32)
patches.SIDE_PX = 25
patches.write(work / "nodules.npz", patients=12, prefix="MADE-UP-L")  # Of all three splits.
for row in sorted(annotations.all_scans(), key=lambda row: (len(row.z_mm), row.series_uid))[:2]:
    write_scan(work / "scans" / row.series_uid, row, matrix=32)
PYTHON

lungjax() { "$PYTHON" -m lungjax.cli "$@"; }
train() {  # TASK DATA KEY=VALUE ...
    local task=$1 data=$2
    shift 2
    "$PYTHON" -m lungjax.main --config="$before/configs/$task.py:quick" --workdir="runs/$task" \
        --config.data.path="data/$data" --config.steps=4 --config.log_every=2 --config.eval_every=2 \
        --config.checkpoint_every=2 --config.keep_checkpoints=1 --config.data.batch_size=8 \
        --config.model.encoder.width=2 "${@/#/--config.}"
}

for name in slices scans; do lungjax prepare --source "$work/$name" --out "data/$name" --workers 1; done
lungjax prepare --source "$work/nodules.npz" --out data/nodules --workers 1
train simclr slices data.slices=all data.crop_px=32 model.projection_hidden=8 model.projection_out=8
train segment slices data.slices=all data.crop_px=32 "model.decoder=(4,2,2)" targets=levels init_from=runs/simclr
train classify nodules model.width=2 model.hidden=4 patch.side_px=16
train diagnose nodules model.width=2 model.hidden=4 model.attention=2 data.nodules=2 patch.side_px=16
for run in segment classify diagnose; do lungjax evaluate --model "runs/$run" --split all >/dev/null; done
for run in runs/*; do
    rm -rf "$run/tensorboard" "$run/examples" "$run/plots" "$run"/*.png
    lungjax export --model "$run" --out "exported/$(basename "$run")" >/dev/null
done
for format in orbax stablehlo onnx; do
    lungjax export --model runs/segment --out "exported/segment-$format" --format "$format" >/dev/null
done

lungjax phantom --scans 2 --seed 0 --matrix 128 --out phantom
"$PYTHON" - <<'PYTHON'
"""Predicts with a network that knows the nodules, for one so small finds none."""

import dataclasses
from pathlib import Path

import chests
import numpy as np

from lungjax.deploy import networks, predict
from lungjax.lidc import whole

module, entries, _ = whole.find(Path("phantom"))
scans = [whole.read(module, entry) for entry in entries]
truth = [(scan.voxels, np.where(np.bitwise_count(scan.reader_bits()) >= 2, 0.9, 0.01)) for scan in scans]
seen = {"slice_mm": [0.5, 5.0], "pixel_mm": [0.5, 5.0], "side_px": 64}
trained, open_trained = dataclasses.replace(chests.untrained(Path("model")), seen=seen), networks.open_trained
networks.open_trained = lambda path: trained if path.name == "model" else open_trained(path)
networks.Segmenter = lambda *_, **__: chests.Told(truth)
others = {"grader": Path("exported/classify"), "patient": Path("exported/diagnose")}
predict.predict(Path("phantom"), model=Path("model"), out=Path("predicted"), **others)
PYTHON
rm -r phantom
find predicted \( -name "*.html" -o -name "*.png" -o -name "*.dcm" \) -delete
tar --sort=name --owner=0 --group=0 --mtime=2026-01-01 -cJf ../written_at_20a579c.tar.xz data runs exported predicted
