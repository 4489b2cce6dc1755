"""Classification of patients: a bag of nodules, a network for each, gated attention, one probability of lung cancer.

    lungjax prepare --source lidc-nodules.npz --out data/nodules
    python -m lungjax.main --config=configs/diagnose.py --workdir=workdir/diagnose

On two CPU cores. A patient is positive with a nodule whose median malignancy is above 3, negative where all are
below, and left out otherwise; or as `--config.data.labels=FILE.csv` says: `patient_id,label`, with the labels of TCIA's
diagnosis sheet, 0 unknown, 1 benign, 2 and 3 malignant.
Two minutes; expected: ROC AUC of 0.90 by folds, as has the highest malignancy of a nodule alone.
`configs/diagnose.py:quick` has fewer steps, for tests.
"""

import ml_collections


def get_config(variant: str = "patches") -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.task = "diagnose"
    config.seed = 0
    config.replicas = 1  # that many seeds, from config.seed on, are trained together, each in WORKDIR/seed-N
    config.deterministic = False  # True: a GPU, too, computes the same bits each time, if more slowly
    config.steps = 400
    config.steps_per_dispatch = 1  # as one program; more than one takes work off the host
    config.accumulate = 1  # parts of a batch that go through the network one after the other; saves memory
    config.remat = False  # computes activations again in the backward pass; saves memory
    config.log_every = 50
    config.eval_every = 400  # The last step is kept: val patients are few, and are needed to calibrate.
    config.checkpoint_every = 200
    config.keep_checkpoints = 2
    config.init_from = ""  # A run or a model: all weights of the same network, else those of the same encoder.
    config.compute_dtype = "float32"
    config.average_decay = 0.99  # of the moving average of the weights, which is what is scored and kept; 0: none

    config.mesh = ml_collections.ConfigDict()
    config.mesh.parameters = "replicated"  # on every device; or "sharded" over them, which saves memory

    config.data = ml_collections.ConfigDict()
    config.data.path = "data/nodules"
    config.data.train_share = 1.0  # of the train patients, drawn by config.seed
    config.data.slices = "rated"
    config.data.batch_size = 16
    config.data.crop_px = 0
    config.data.crop_at = "nodule"
    config.data.workers = 0
    config.data.placement = "host"  # of the train pixels; or "device", where all of them fit
    config.data.nodules = 8  # of a bag
    config.data.labels = ""  # a CSV of patient_id,label; "": the readers' ratings

    config.model = ml_collections.ConfigDict()
    config.model.encoder = ml_collections.ConfigDict()  # That of configs/simclr.py:patches, which this starts from.
    config.model.encoder.depth = 10
    config.model.encoder.width = 16
    config.model.encoder.norm = "batch"
    config.model.encoder.stem = "patch"
    config.model.encoder.patch_px = 2
    config.model.width = 16
    config.model.hidden = 64
    config.model.dropout = 0.2
    config.model.attention = 32

    config.patch = ml_collections.ConfigDict()  # The network's input, resampled to pixels of one size.
    config.patch.side_px = 48
    config.patch.pixel_mm = 0.65
    config.patch.window_hu = (-300.0, 1400.0)  # centre, width

    config.outline_weight = 1.0
    config.ratings_weight = 1.0
    config.nodule_weight = 1.0  # of the nodules' own outlines, labels and ratings, relative to the patient's

    config.augment = ml_collections.ConfigDict()  # As lungjax.data.augment.nodule.
    config.augment.zoom = 0.1
    config.augment.shift_mm = 0.65
    config.augment.offset_hu = 15.0
    config.augment.noise_hu = 28.0

    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.weight_decay = 0.05
    config.optimizer.warmup = 0.1  # share of the steps
    config.optimizer.clip_norm = 1.0
    config.optimizer.encoder_rate = 1.0  # learning rate of the encoder, as a share of the others'; 0: it is frozen

    quick = {"steps": 60, "eval_every": 60, "checkpoint_every": 30, "data.nodules": 3, "patch.side_px": 32}
    variants = {"patches": {}, "quick": quick}
    if variant not in variants:
        raise KeyError(f"there is no variant {variant!r}; use one of {', '.join(variants)}")
    config.update_from_flattened_dict(variants[variant])
    return config
