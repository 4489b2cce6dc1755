#!/usr/bin/env bash
# A Grain iterator's state belongs to one number of worker processes: with any other it ends in a bare IndexError.
#
# Versions:  grain 0.2.18.
# Behaviour: the state of `mp_prefetch` holds one position for each worker. `set_state` of a pipeline that differs in
#            `num_workers` alone raises `IndexError: list index out of range` and names neither the workers nor the
#            state, so a checkpoint cannot be resumed on a machine with fewer or more cores. Where every element is
#            drawn by number, as from a MapDataset, `.slice(slice(n, None))` goes on from element n with any number.
# Seen:      state of 2 workers, 2 workers: goes on
#            state of 2 workers, 1 workers: IndexError
#            state of 2 workers, 3 workers: IndexError
#            sliced from 3, 3 workers: goes on
#
# Needs Python 3.11 to 3.13 (PYTHON=... chooses it) and a package index. Exits non-zero when this has changed.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check grain==0.2.18
cat > "$folder/run.py" <<'PYTHON'
import sys

import grain
from absl import flags


def batches(workers, start=0):
    pipeline = grain.MapDataset.range(40).seed(0).shuffle().batch(2).slice(slice(start, None))
    in_process = pipeline.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    return iter(in_process.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers)))


def rest(iterator):
    return [batch.tolist() for batch in iterator]


if __name__ == "__main__":
    flags.FLAGS(sys.argv[:1])
    first = batches(2)
    for _ in range(3):
        next(first)
    state = first.get_state()
    wanted = rest(first)
    for workers in (2, 1, 3):
        again = batches(workers)
        try:
            again.set_state(state)
            result = "goes on" if rest(again) == wanted else "other batches"
        except IndexError:
            result = "IndexError"
        again.close()
        print(f"state of 2 workers, {workers} workers: {result}")
    print("sliced from 3, 3 workers:", "goes on" if rest(batches(3, 3)) == wanted else "other batches")
PYTHON
seen="$("$folder/venv/bin/python" "$folder/run.py" 2>/dev/null)"
echo "$seen"
[ "$seen" = "state of 2 workers, 2 workers: goes on
state of 2 workers, 1 workers: IndexError
state of 2 workers, 3 workers: IndexError
sliced from 3, 3 workers: goes on" ]
