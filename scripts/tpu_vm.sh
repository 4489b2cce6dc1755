#!/usr/bin/env bash
# Trains on a TPU VM or on every host of a pod slice: copies nothing, starts the same command on each host. A stopped run is
# resumed by the same command.
#
#   bash scripts/tpu_vm.sh NAME --zone ZONE [--folder DIR] [--dry-run] -- FLAG ...
#   bash scripts/tpu_vm.sh v5e-16 --zone us-west4-a -- \
#       --config=segment --workdir=/mnt/shared/segment --config.data.path=/mnt/shared/lidc
#
# --folder is where lungjax lies on the hosts, set up by `bash scripts/setup.sh` and `pip install "jax[tpu]"`; the default
# is `lungjax`. All hosts must see the same data and the same workdir. FLAGs are those of `python -m lungjax.main`;
# --coordinator=auto is added. --dry-run prints the command and starts nothing.
set -euo pipefail

usage() {
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

fail() {
    echo "tpu_vm.sh: $1; see --help." >&2
    exit 2
}

name="" zone="" folder=lungjax dry_run=""
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case "$1" in
        -h | --help) usage && exit ;;
        --dry-run) dry_run=1 && shift ;;
        --zone | --folder)
            [ $# -gt 1 ] || fail "$1 needs a value"
            printf -v "${1#--}" %s "$2"
            shift 2
            ;;
        -*) fail "$1 is no option" ;;
        *)
            [ -z "$name" ] || fail "two names of TPUs, $name and $1"
            name="$1" && shift
            ;;
    esac
done
[ -n "$name" ] || fail "the TPU's name is missing"
[ -n "$zone" ] || fail "--zone is missing"
if [ "${1:-}" != -- ] || [ $# -lt 2 ]; then fail "the flags of lungjax.main are missing after --"; fi
shift
remote="cd $(printf %q "$folder") && .venv/bin/python -m lungjax.main$(printf ' %q' "$@" --coordinator=auto)"
command=(gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker=all --command="$remote")

if [ -n "$dry_run" ]; then
    printf '%q ' "${command[@]}"
    echo
else
    command -v gcloud >/dev/null || fail "gcloud is not on PATH: install Google Cloud's CLI, or use --dry-run"
    "${command[@]}"
fi
