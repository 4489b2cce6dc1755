#!/usr/bin/env bash
# Submits a training run to Slurm, the same command in every task, one task a GPU (JAX gives each task one). Two minutes
# before its time is up, the run saves and stops; the same command again resumes it.
#
#   bash scripts/slurm.sh [--nodes N] [--gpus N] [--cpus N] [--time HH:MM:SS] [--dry-run] [SBATCH_OPTION ...] -- FLAG ...
#   bash scripts/slurm.sh --nodes 2 --gpus 4 --partition=gpu -- \
#       --config=segment --workdir=/shared/segment --config.data.path=/shared/lidc
#
# --gpus is of a node, --cpus of a task. FLAGs are those of `python -m lungjax.main`; --coordinator=auto is added.
# PYTHON=... chooses the interpreter; the default is `.venv/bin/python`. --dry-run prints the job and submits nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() {
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

fail() {
    echo "slurm.sh: $1; see --help." >&2
    exit 2
}

nodes=1 gpus=1 cpus=8 time=12:00:00 dry_run="" options=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case "$1" in
        -h | --help) usage && exit ;;
        --dry-run) dry_run=1 && shift ;;
        --nodes | --gpus | --cpus | --time)
            [ $# -gt 1 ] || fail "$1 needs a value"
            printf -v "${1#--}" %s "$2"
            shift 2
            ;;
        -*) options+=("$1") && shift ;;
        *) fail "$1 is no option" ;;
    esac
done
if [ "${1:-}" != -- ] || [ $# -lt 2 ]; then fail "the flags of lungjax.main are missing after --"; fi
shift
for number in "$nodes" "$gpus" "$cpus"; do
    [[ $number =~ ^[1-9][0-9]*$ ]] || fail "$number is no number of nodes, GPUs or CPUs"
done
python="${PYTHON:-$PWD/.venv/bin/python}"

job() {
    printf '%s\n' "#!/usr/bin/env bash" "#SBATCH --job-name=lungjax" "#SBATCH --nodes=$nodes" \
        "#SBATCH --ntasks-per-node=$gpus" "#SBATCH --gpus-per-node=$gpus" "#SBATCH --cpus-per-task=$cpus" \
        "#SBATCH --time=$time" "#SBATCH --signal=TERM@120"
    printf '#SBATCH %s\n' "${options[@]}" | sed '/^#SBATCH $/d'
    printf 'srun %q -m lungjax.main' "$python"
    printf ' %q' "$@" --coordinator=auto
    echo
}

if [ -n "$dry_run" ]; then
    job "$@"
else
    command -v sbatch >/dev/null || fail "sbatch is not on PATH: run this where Slurm jobs are submitted, or use --dry-run"
    job "$@" | sbatch
fi
