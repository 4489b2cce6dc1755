"""False-positive reduction: a classifier of the detector's candidates, nodule or not.

    lungjax mine --model workdir/scans --data data/slices data/phantoms --out data/candidates
    python -m lungjax.main --config=configs/sift.py --workdir=workdir/sift

For stacks of three slices, 2.5 mm apart, around each candidate; 15 minutes on two CPU cores.
`configs/sift.py:bundled` gave the bundled `candidate-classifier`: candidates of crops and of 20 phantoms, four to one.

    lungjax mine --model detector --data data/slices --out data/candidates
    lungjax mine --model detector --data data/phantoms-20 --out data/candidates-phantoms

`configs/sift.py:quick` has fewer steps, for tests.
"""

import ml_collections


def get_config(variant: str = "stacks") -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.task = "sift"
    config.seed = 0
    config.replicas = 1  # that many seeds, from config.seed on, are trained together, each in WORKDIR/seed-N
    config.deterministic = False  # True: a GPU, too, computes the same bits each time, if more slowly
    config.steps = 3_000
    config.steps_per_dispatch = 1  # as one program; more than one takes work off the host
    config.accumulate = 1  # parts of a batch that go through the network one after the other; saves memory
    config.remat = False  # computes activations again in the backward pass; saves memory
    config.log_every = 100
    config.eval_every = 1_000
    config.checkpoint_every = 1_000
    config.keep_checkpoints = 2
    config.init_from = ""  # A run or a model: of this very network all of it, else the same config.model.encoder.
    config.compute_dtype = "float32"
    config.average_decay = 0.999  # of the moving average of the weights, which is what is scored and kept; 0: none

    config.mesh = ml_collections.ConfigDict()
    config.mesh.parameters = "replicated"  # on every device; or "sharded" over them, which saves memory

    config.data = ml_collections.ConfigDict()
    config.data.path = "data/candidates"
    config.data.train_share = 1.0  # of the train patients; which of them, config.seed says
    config.data.slices = "all"
    config.data.batch_size = 64
    config.data.crop_px = 0
    config.data.crop_at = "nodule"
    config.data.workers = 0
    config.data.placement = "host"  # of the train pixels; or "device", where all of them fit
    config.data.parts = ml_collections.ConfigDict()  # Where there are some, training draws from these by their rates.

    config.model = ml_collections.ConfigDict()
    config.model.encoder = ml_collections.ConfigDict()
    config.model.encoder.depth = 10
    config.model.encoder.width = 16
    config.model.encoder.norm = "group"
    config.model.encoder.stem = "patch"
    config.model.encoder.patch_px = 2
    config.model.hidden = 64
    config.model.dropout = 0.2

    config.patch = ml_collections.ConfigDict()  # What the network sees of a stack, in pixels of one size.
    config.patch.side_px = 64
    config.patch.pixel_mm = 0.7
    config.patch.window_hu = (-300.0, 1400.0)  # centre, width

    config.augment = ml_collections.ConfigDict()  # As lungjax.data.augment.stack.
    config.augment.zoom = 0.15
    config.augment.shift_mm = 2.0
    config.augment.contrast = 0.15
    config.augment.offset_hu = 30.0
    config.augment.noise_hu = 40.0
    config.augment.one_plane = 0.2

    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.1
    config.optimizer.warmup = 0.1  # share of the steps
    config.optimizer.clip_norm = 1.0
    config.optimizer.encoder_rate = 1.0  # learning rate of the encoder, as a share of the others'; 0: it is frozen

    quick = {"steps": 40, "log_every": 10, "eval_every": 40, "checkpoint_every": 20, "data.batch_size": 8}
    variants = {"stacks": {}, "bundled": {}, "quick": quick}
    if variant not in variants:
        raise KeyError(f"there is no variant {variant!r}; use one of {', '.join(variants)}")
    config.update_from_flattened_dict(variants[variant])
    if variant == "bundled":
        for name, path, rate in (("crops", "data/candidates", 4.0), ("scans", "data/candidates-phantoms", 1.0)):
            part = {"path": path, "slices": "all", "crop_at": "nodule", "rate": rate}
            config.data.parts[name] = ml_collections.ConfigDict(part)
    return config
