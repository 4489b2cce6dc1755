"""SimCLR pretraining of an encoder on lung slices.

    python -m lungjax.main --config=configs/simclr.py --workdir=workdir/simclr --config.data.path=PREPARED

Full size, for an accelerator: ResNet-34 on 256 x 256 crops in HU, global batch 512, bfloat16.
It has no figures yet: it has not been run to its end.
`configs/simclr.py:quick` runs in minutes on two CPU cores: the built-in phantom data, a narrow ResNet-10.
Expected of quick, on the phantom: contrastive top-1 on val patients several times that of chance (0.016).
`configs/simclr.py:slices` is for the 128 x 128 LIDC crops: half an hour on two CPU cores. Expected:
contrastive top-1 of 0.42 on val patients, of 128 views.
`configs/simclr.py:dense` is the same with a U-Net's decoder, by contrast of places. It has no figures yet.
`configs/simclr.py:patches` is for patches of nodules, for configs/classify.py to start from: a quarter of an hour
on one CPU core. Views show 80 to 100 % of a patch, so that they keep the nodule's size.
Expected, on val patients: ROC AUC of 0.89 of a linear classifier of malignancy on its features.
"""

import ml_collections

from lungjax.ct.windows import LUNG_HU


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.task = "pretrain"
    config.seed = 0
    config.replicas = 1  # that many seeds, from config.seed on, are trained together, each in WORKDIR/seed-N
    config.deterministic = False  # True: a GPU, too, computes the same bits each time, if more slowly
    config.steps = 50_000
    config.steps_per_dispatch = 1  # as one program; more than one takes work off the host
    config.accumulate = 1  # parts of a batch that go through the network one after the other; saves memory
    config.remat = False  # computes activations again in the backward pass; saves memory
    config.log_every = 100
    config.eval_every = 2_500
    config.checkpoint_every = 2_500
    config.keep_checkpoints = 2
    config.init_from = ""
    config.compute_dtype = "bfloat16"
    config.average_decay = 0.0  # of the moving average of the weights, which is what is scored and kept; 0: none

    config.mesh = ml_collections.ConfigDict()
    config.mesh.parameters = "replicated"  # on every device; or "sharded" over them, which saves memory

    config.data = ml_collections.ConfigDict()
    config.data.path = "data/lidc"
    config.data.slices = "all"
    config.data.train_share = 1.0  # of the train patients, drawn by config.seed
    config.data.batch_size = 512
    config.data.crop_px = 256
    config.data.crop_at = "random"
    config.data.context = 0  # slices above, and below, that are shown with each slice; of whole scans
    config.data.context_mm = 0.0  # how far apart; 0: neighbouring slices
    config.data.workers = 8
    config.data.placement = "host"  # of the train pixels; or "device", where all of them fit

    config.model = ml_collections.ConfigDict()
    config.model.encoder = ml_collections.ConfigDict()  # The same in configs/segment.py, which starts from it.
    config.model.encoder.depth = 34
    config.model.encoder.width = 64
    config.model.encoder.norm = "group"
    config.model.encoder.stem = "patch"
    config.model.encoder.patch_px = 2
    config.model.projection_hidden = 2048
    config.model.projection_out = 128

    config.model.decoder = (256, 128, 64)  # That of configs/segment.py, which starts from it, too; for what follows.

    config.contrast_weight = 1.0  # of SimCLR's loss; other than 1 beside one of the following
    config.dense_weight = 0.0  # of the loss of places, which pretrains the decoder, too; 0: the encoder alone
    config.masked_weight = 0.0  # of the loss of restoring what is hidden, which does as well
    config.temperature = 0.2
    config.positives = "views"  # of one slice; or "neighbours": of it and another of its series within neighbour_mm
    config.neighbour_mm = 5.0  # Where positions are unknown, slices that follow each other.
    config.same_scan_mm = 10.0  # Slices of one scan nearer than this are not negatives; 0: all are.

    config.augment = ml_collections.ConfigDict()
    config.augment.window_hu = LUNG_HU  # centre, width
    config.augment.area = (0.3, 1.0)  # of the random resized crop
    config.augment.rotation_deg = 30.0
    config.augment.intensity_jitter = 0.3
    config.augment.blur_px = 1.0
    config.augment.noise = 0.03
    config.augment.cutout = 0.25

    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.name = "lars"
    config.optimizer.learning_rate = 0.3 * 512 / 256
    config.optimizer.weight_decay = 1e-6
    config.optimizer.warmup = 0.1  # share of the steps
    config.optimizer.clip_norm = 1.0

    two_cores = {
        "compute_dtype": "float32",
        "data.workers": 0,
        "model.encoder.depth": 10,
        "model.projection_hidden": 256,
        "model.projection_out": 64,
        "optimizer.name": "adamw",
        "optimizer.learning_rate": 1e-3,
        "optimizer.weight_decay": 1e-4,
    }
    quick = {
        "steps": 150,
        "log_every": 25,
        "eval_every": 75,
        "checkpoint_every": 75,
        "data.path": "phantom",
        "data.slices": "nodule",
        "data.batch_size": 32,
        "data.crop_px": 96,
        "model.encoder.width": 16,
        "model.decoder": (64, 32, 16),
    }
    slices = {
        "steps": 2_000,
        "eval_every": 500,
        "checkpoint_every": 500,
        "data.path": "data/slices",
        "data.batch_size": 64,
        "data.crop_px": 0,
        "augment.window_hu": (-200.0, 2000.0),  # As the U-Net that starts from it sees slices.
        "model.encoder.width": 32,
        "model.encoder.patch_px": 4,
        "model.decoder": (128, 64, 32),
    }
    patches = {  # The encoder of configs/classify.py, on the patches that it grades.
        "steps": 3_000,
        "eval_every": 1_000,
        "checkpoint_every": 1_000,
        "data.path": "data/nodules",
        "data.batch_size": 64,
        "data.crop_px": 48,
        "data.crop_at": "random",
        "model.encoder.width": 16,
        "model.encoder.norm": "batch",
        "augment.window_hu": (-300.0, 1400.0),
        "augment.area": (0.8, 1.0),
        "augment.rotation_deg": 180.0,
    }
    dense = {"dense_weight": 1.0}
    variants = {
        "full": {},
        "quick": two_cores | quick,
        "slices": two_cores | slices,
        "dense": two_cores | slices | dense,
        "patches": two_cores | patches,
    }
    if variant not in variants:
        raise KeyError(f"there is no variant {variant!r}; use one of {', '.join(variants)}")
    config.update_from_flattened_dict(variants[variant])
    return config
