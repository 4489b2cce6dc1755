"""Nodule segmentation: a U-Net on the ResNet encoder, from scratch or from a SimCLR run.

    python -m lungjax.main --config=configs/segment.py --workdir=workdir/segment --config.data.path=PREPARED \
        --config.init_from=workdir/simclr

Full size, for an accelerator: ResNet-34 encoder, 256 x 256 crops around nodules in HU, batch 64, bfloat16.
It has no figures yet: it has not been run to its end.
`configs/segment.py:quick` runs in minutes on two CPU cores: the built-in phantom data, a narrow ResNet-10.
Expected of quick, on the phantom: pooled Dice of at least 0.70 on the test patients.
`configs/segment.py:slices` is for the 128 x 128 LIDC crops: 35 minutes on two CPU cores. Expected: pooled Dice of
0.74 on the test patients, where one reader against the others reaches 0.70.
`configs/segment.py:slices_fine` is as quick with a quarter of the parameters at twice the resolution. Expected: 0.75.
`configs/segment.py:slices_scans` is `slices_fine` with nodules up to 32 px off the middle of the crops. Expected: 0.73.
`configs/segment.py:slices_wide` goes on from it with up to 48 px; docs/results/whole-scans.md has its figures.
`configs/segment.py:scans` makes a detector of whole scans from `slices_scans`. Its batches are mixed from several data
sets, `config.data.parts`, at rates that you set: crops of the LIDC slices in which nodules lie anywhere, are cut off or
are not there, and crops at nodules and in the lungs of phantoms and of other whole scans. It was used for the bundled
`detector`: 15 minutes on two CPU cores.

    lungjax prepare --source lidc-slices.zip --out data/slices
    lungjax phantom --scans 60 --seed 18 --out phantoms && lungjax prepare --source phantoms --out data/phantoms
    python -m lungjax.main --config=configs/segment.py:slices_scans --workdir=workdir/slices-scans
    python -m lungjax.main --config=configs/segment.py:scans --workdir=workdir/scans \
        --config.init_from=workdir/slices-scans

Scans without nodules (`lungjax prepare --format unmarked`) are added by `--config.data.parts.lungs.path=data/healthy`;
who has LIDC-IDRI itself names it as the path of `nodules` and of `lungs`. `configs/segment.py:scans_again` is a second
round with the false candidates of the first (hard negatives), which has not been used for a bundled model yet:

    lungjax mine --model workdir/scans --data data/slices data/phantoms --out data/candidates
    python -m lungjax.main --config=configs/segment.py:scans_again --workdir=workdir/scans-again \
        --config.init_from=workdir/scans

`configs/segment.py:slices_gpu` is for these crops too, with twice the resolution and depth, and was used for the
bundled `segmenter`: under ten minutes on an H100. Expected: 0.76.
"""

import ml_collections

from lungjax.ct.windows import LUNG_HU


def _part(path: str, slices: str, crop_at: str, rate: float) -> ml_collections.ConfigDict:
    return ml_collections.ConfigDict({"path": path, "slices": slices, "crop_at": crop_at, "rate": rate})


def get_config(variant: str = "full") -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict()
    config.task = "segment"
    config.seed = 0
    config.replicas = 1  # that many seeds, from config.seed on, are trained together, each in WORKDIR/seed-N
    config.deterministic = False  # True: a GPU, too, computes the same bits each time, if more slowly
    config.steps = 40_000
    config.steps_per_dispatch = 1  # as one program; more than one takes work off the host
    config.accumulate = 1  # parts of a batch that go through the network one after the other; saves memory
    config.remat = False  # computes activations again in the backward pass; saves memory
    config.log_every = 100
    config.eval_every = 2_000
    config.checkpoint_every = 2_000
    config.keep_checkpoints = 2
    config.init_from = ""  # A run or a model: all weights of the same network, else those of the same encoder.
    config.compute_dtype = "bfloat16"
    config.average_decay = 0.999  # of the moving average of the weights, which is what is scored and kept; 0: none

    config.mesh = ml_collections.ConfigDict()
    config.mesh.parameters = "replicated"  # on every device; or "sharded" over them, which saves memory

    config.data = ml_collections.ConfigDict()
    config.data.path = "data/lidc"
    config.data.slices = "nodule"
    config.data.train_share = 1.0  # of the train patients, drawn by config.seed
    config.data.batch_size = 64
    config.data.crop_px = 256
    config.data.crop_at = "nodule"
    config.data.context = 0  # slices above, and below, that are shown with each slice; of whole scans
    config.data.context_mm = 0.0  # how far apart; 0: neighbouring slices
    config.data.workers = 8
    config.data.placement = "host"  # of the train pixels; or "device", where all of them fit
    config.data.parts = ml_collections.ConfigDict()  # Where there are some, training draws from these by their rates.

    config.model = ml_collections.ConfigDict()
    config.model.encoder = ml_collections.ConfigDict()  # The same in configs/simclr.py, which this starts from.
    config.model.encoder.depth = 34
    config.model.encoder.width = 64
    config.model.encoder.norm = "group"
    config.model.encoder.stem = "patch"
    config.model.encoder.patch_px = 2
    config.model.decoder = (256, 128, 64)

    config.targets = "majority"  # or "soft": the share of the readers; "random": one reader a step; or "levels":
    # a logit each for at least 1, 2, 3, 4 of them, of which the second is scored.
    config.dice_weight = 1.0
    config.dice_pool = "batch"  # Dice of all pixels of a batch; or "image": each image's, so that small nodules count

    config.augment = ml_collections.ConfigDict()
    config.augment.window_hu = LUNG_HU  # centre, width
    config.augment.rotation_deg = 20.0
    config.augment.zoom = 0.15
    config.augment.shift = 0.05
    config.augment.intensity_jitter = 0.15
    config.augment.noise = 0.02

    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 1e-4
    config.optimizer.warmup = 0.1  # share of the steps
    config.optimizer.clip_norm = 1.0
    config.optimizer.encoder_rate = 1.0  # learning rate of the encoder, as a share of the others'; 0: it is frozen

    two_cores = {"compute_dtype": "float32", "data.workers": 0, "model.encoder.depth": 10}
    quick = {
        "steps": 400,
        "log_every": 25,
        "eval_every": 400,  # Three val patients are too few to choose a step by.
        "checkpoint_every": 100,
        "data.path": "phantom",
        "data.batch_size": 16,
        "data.crop_px": 96,
        "model.encoder.width": 16,
        "model.decoder": (64, 32, 16),
        "optimizer.learning_rate": 2e-3,
    }
    slices = {
        "steps": 4_000,
        "eval_every": 500,
        "checkpoint_every": 500,
        "data.path": "data/slices",
        "data.batch_size": 32,
        "data.crop_px": 0,
        "targets": "levels",
        "augment.window_hu": (-200.0, 2000.0),  # Wide, because the HU of 8-bit crops are estimates.
        "augment.rotation_deg": 180.0,
        "augment.zoom": 0.3,
        "augment.shift": 0.1,
        "augment.intensity_jitter": 0.3,
        "augment.noise": 0.05,
        "optimizer.weight_decay": 0.1,
        "model.encoder.width": 32,
        "model.encoder.patch_px": 4,
        "model.decoder": (128, 64, 32),
        "optimizer.learning_rate": 2e-3,
    }
    slices_fine = {"model.encoder.width": 16, "model.encoder.patch_px": 2, "model.decoder": (64, 32, 16)}
    slices_scans = {**slices_fine, "steps": 7_000, "augment.shift": 0.25}
    slices_wide = {
        **slices_scans,
        "steps": 1_500,
        "eval_every": 500,
        "checkpoint_every": 500,
        "augment.shift": 0.375,
        "optimizer.learning_rate": 5e-4,
    }
    scans = {
        **slices_fine,
        "steps": 2_000,
        "data.crop_px": 96,
        "data.crop_at": "random",
        "augment.shift": 0.05,
        "optimizer.learning_rate": 1e-3,
    }
    slices_gpu = {
        "steps": 18_000,
        "log_every": 200,
        "eval_every": 1_000,  # The best step is 7,000 to 10,000; later ones miss more.
        "checkpoint_every": 1_000,
        "data.batch_size": 64,
        "data.workers": 3,
        "model.encoder.depth": 18,
        "model.encoder.patch_px": 2,
    }
    variants = {
        "full": {},
        "quick": two_cores | quick,
        "slices": two_cores | slices,
        "slices_fine": two_cores | slices | slices_fine,
        "slices_scans": two_cores | slices | slices_scans,
        "slices_wide": two_cores | slices | slices_wide,
        "scans": two_cores | slices | scans,
        "scans_again": two_cores | slices | scans,
        "slices_gpu": two_cores | slices | slices_gpu,
    }
    if variant not in variants:
        raise KeyError(f"there is no variant {variant!r}; use one of {', '.join(variants)}")
    config.update_from_flattened_dict(variants[variant])
    if variant.startswith("scans"):
        config.data.parts.nodules = _part("data/slices", "nodule", "random", 5.0)
        config.data.parts.phantom_nodules = _part("data/phantoms", "nodule", "nodule", 1.0)
        config.data.parts.phantom_lungs = _part("data/phantoms", "lung", "lung", 1.0)
        config.data.parts.lungs = _part("", "lung", "lung", 1.0)
        config.data.parts.candidates = _part(
            "data/candidates", "all", "random", 3.0 if variant == "scans_again" else 0.0
        )
    return config
