"""Which pretraining pays? Every arm is pretrained, and then each is fine-tuned on shares of the patients and scored.

    lungjax prepare --source lidc-slices.zip --out data/slices
    python scripts/pretraining_study.py --data data/slices --out workdir/pretraining \
        [--nodules data/nodules] [--phantoms data/phantoms] [--arms simclr,dense,...] [--gpu] [--minutes 9] \
        [-- --split val --shares 1,2,5 --seeds 5 --config.steps=300 ...]

Arms, all of one network:

    simclr      two views of a slice
    neighbours  another slice of the same nodule as the second view
    crops       crops of 64 px at nodules
    dense       of such crops, SimCLR and contrast of places, with the decoder
    masked      hidden blocks of such crops restored, with the decoder
    both        the last two together
    ratings     malignancy and the nine ratings learnt from patches of nodules (--nodules)
    phantoms    nodules of phantoms segmented in crops of 128 px, with the decoder (--phantoms)

What follows `--` goes to `scripts/label_efficiency.py`: choose an arm on val patients, and look at test patients once.
`--gpu`: more than a hundred times as many images, in bfloat16 from the device's memory, all arms beside each other.
After `--minutes` all stop at their last checkpoints; the same command goes on from these.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
NETWORK = {"model.encoder.width": 16, "model.encoder.patch_px": 4, "model.encoder.norm": "group"}
DECODER = {"model.decoder": "(64,32,16)"}
CROPS = {"data.crop_px": 64, "data.crop_at": "nodule"}
ARMS: dict[str, tuple[str, Mapping[str, object]]] = {
    "simclr": ("simclr.py:slices", DECODER),
    "neighbours": ("simclr.py:slices", DECODER | {"positives": "neighbours"}),
    "crops": ("simclr.py:slices", DECODER | CROPS),
    "dense": ("simclr.py:slices", DECODER | CROPS | {"dense_weight": 1.0}),
    "masked": ("simclr.py:slices", DECODER | CROPS | {"contrast_weight": 0.0, "masked_weight": 1.0}),
    "both": ("simclr.py:slices", DECODER | CROPS | {"dense_weight": 1.0, "masked_weight": 1.0}),
    "ratings": ("classify.py", {"patch.side_px": 64}),  # A multiple of 8 patches of the encoder.
    "phantoms": ("segment.py:slices", DECODER | {"data.crop_px": 128, "data.crop_at": "nodule"}),
}
"""Configuration and changed values of each."""
SOURCES = {"ratings": "nodules", "phantoms": "phantoms"}
"""The option that names an arm's data; `data` for the others."""
CPU = {"steps": 1_500, "eval_every": 500, "checkpoint_every": 500}
GPU = {
    "steps": 12_500,
    "eval_every": 2_500,
    "checkpoint_every": 500,
    "compute_dtype": "bfloat16",
    "data.batch_size": 1_024,
    "data.placement": "device",
    "steps_per_dispatch": 10,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 stopped or failed, 2 a user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="prepared slices")
    parser.add_argument("--nodules", type=Path, help="prepared patches of nodules, for the arm ratings")
    parser.add_argument("--phantoms", type=Path, help="prepared phantoms, for the arm phantoms")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--arms", help="default: all whose data are given")
    parser.add_argument("--gpu", action="store_true", help="at a GPU's size, all arms beside each other")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which all stops (default: never)")
    parser.add_argument("options", nargs="*", help="of scripts/label_efficiency.py, after --")
    given = parser.parse_args(argv)
    data = {arm: getattr(given, SOURCES.get(arm, "data")) for arm in ARMS}
    arms = given.arms.split(",") if given.arms else [arm for arm in ARMS if data[arm] is not None]
    for arm in arms:
        if arm not in ARMS:
            parser.error(f"there is no arm {arm!r}; there are {', '.join(ARMS)}")
        if data[arm] is None:
            parser.error(f"the arm {arm} needs --{SOURCES[arm]}")
    deadline = time.monotonic() + 60 * given.minutes
    size = GPU if given.gpu else CPU
    commands = [_pretraining(arm, data[arm], given.out / "arms" / arm, size) for arm in arms]
    for beside in [commands] if given.gpu else [[command] for command in commands]:
        if not _all_done(beside, deadline):
            return 1
    study = [sys.executable, str(ROOT / "scripts" / "label_efficiency.py"), f"--out={given.out / 'study'}"]
    study += [f"--config={ROOT / 'configs' / 'segment.py'}:slices", f"--config.data.path={given.data}"]
    study += _options(NETWORK | DECODER) + [f"--pretrained={arm}={given.out / 'arms' / arm}" for arm in arms]
    return 0 if _all_done([[*study, *given.options]], deadline) else 1


def _pretraining(arm: str, data: Path, workdir: Path, size: Mapping[str, object]) -> list[str]:
    config, changes = ARMS[arm]
    command = [sys.executable, "-m", "lungjax.main", f"--config={ROOT / 'configs' / config}", f"--workdir={workdir}"]
    return [*command, f"--config.data.path={data}", *_options({**NETWORK, **size, **changes})]


def _options(values: Mapping[str, object]) -> list[str]:
    return [f"--config.{name}={value}" for name, value in values.items()]


def _all_done(commands: list[list[str]], deadline: float) -> bool:
    """Runs commands beside each other; at the deadline, or where one fails, the others stop at their checkpoints."""
    # Of a GPU each takes the memory that it needs, not three quarters.
    env = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    processes = [subprocess.Popen(command, env=env) for command in commands]
    stopped = False
    try:
        while any(process.poll() is None for process in processes):
            if not stopped and (time.monotonic() > deadline or any(process.poll() for process in processes)):
                stopped = True
                for process in processes:
                    process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
    finally:
        for process in processes:
            process.wait()
    failed = any(process.returncode for process in processes)
    if stopped and not failed:
        print("pretraining_study: stopped; the same command goes on from the last checkpoints", file=sys.stderr)
    return not stopped and not failed


if __name__ == "__main__":
    sys.exit(main())
