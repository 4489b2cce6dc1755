"""Nodule segmentation: a U-Net on the ResNet encoder, from scratch or from a SimCLR run.

    python -m lungjax.main --config=configs/segment.py --workdir=workdir/segment --config.data.path=PREPARED \
        --config.init_from=workdir/simclr

Full size, for an accelerator: ResNet-34 encoder, 256 x 256 crops around nodules in HU, batch 64, bfloat16.
`configs/segment.py:quick` runs in minutes on two CPU cores: the built-in phantom data, a narrow ResNet-10.
Expected of quick, on the phantom: pooled Dice of at least 0.70 on the test patients.
"""

import ml_collections


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    quick = {"full": False, "quick": True}[variant]
    config = ml_collections.ConfigDict()
    config.task = "segment"
    config.seed = 0
    config.steps = 400 if quick else 40_000
    config.log_every = 25 if quick else 100
    config.eval_every = 400 if quick else 2_000  # Quick's three val patients are too few to choose a step by.
    config.checkpoint_every = 100 if quick else 2_000
    config.keep_checkpoints = 2
    config.init_from = ""  # The workdir of a pretraining run with the same config.model.encoder.
    config.compute_dtype = "float32" if quick else "bfloat16"

    config.data = ml_collections.ConfigDict()
    config.data.path = "phantom" if quick else "data/lidc"
    config.data.slices = "nodule"
    config.data.batch_size = 16 if quick else 64
    config.data.crop_px = 96 if quick else 256
    config.data.crop_at = "nodule"
    config.data.workers = 0 if quick else 8

    config.model = ml_collections.ConfigDict()
    config.model.encoder = ml_collections.ConfigDict()  # The same in configs/simclr.py, which this starts from.
    config.model.encoder.depth = 10 if quick else 34
    config.model.encoder.width = 16 if quick else 64
    config.model.encoder.norm = "group"
    config.model.encoder.stem = "patch"
    config.model.decoder = (64, 32, 16) if quick else (256, 128, 64)

    config.targets = "majority"  # or "soft": the share of the readers; or "random": one reader a step
    config.dice_weight = 1.0

    config.augment = ml_collections.ConfigDict()
    config.augment.window_hu = (-600.0, 1500.0)  # centre, width
    config.augment.rotation_deg = 20.0
    config.augment.zoom = 0.15
    config.augment.intensity_jitter = 0.15
    config.augment.noise = 0.02

    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-3 if quick else 1e-3
    config.optimizer.weight_decay = 1e-4
    config.optimizer.warmup = 0.1  # share of the steps
    config.optimizer.clip_norm = 1.0
    return config
