"""A trained network as one function of arrays such as HU, with a description of its inputs and outputs."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lungjax.ct.scan import RATING_NAMES, READERS
from lungjax.data.context import Context
from lungjax.models.encoder import BOTTLENECK, ResNet
from lungjax.prediction.patches import SIDE_PX, STACK_PX
from lungjax.prediction.tiling import STORED_PX, Tiling
from lungjax.tasks import classify, diagnose, pretrain, segment, sift
from lungjax.tasks.task import Config
from lungjax.train.trained import Trained

GOLDEN_BATCHES = (1, 3)


@dataclasses.dataclass(frozen=True)
class ArraySpec:
    """An input or output: float32, with the batch as first axis.

    Attributes:
      name: of the array.
      shape: without the batch axis.
      meaning: what it contains, with its unit.
    """

    name: str
    shape: tuple[int, ...]
    meaning: str

    def described(self) -> dict[str, Any]:
        """The description, for JSON."""
        return {"name": self.name, "shape": ["batch", *self.shape], "dtype": "float32", "says": self.meaning}


@dataclasses.dataclass(frozen=True)
class Signature:
    """A network's function, inputs and outputs.

    Attributes:
      function: (variables, *inputs) -> a tuple of the outputs; computes in float32.
      inputs, outputs: in the order of the function.
    """

    function: Callable[..., tuple[jax.Array, ...]]
    inputs: tuple[ArraySpec, ...]
    outputs: tuple[ArraySpec, ...]


def network_signature(trained: Trained) -> Signature:
    """The signature of a network, including windowing, resampling and calibration."""
    config = copy.deepcopy(trained.config)
    config.compute_dtype = "float32"
    kinds = {"segment": _segment, "pretrain": _pretrain, "sift": _sift, "classify": _classify, "diagnose": _diagnose}
    return kinds[config.task](config, trained)


def _task(module: Any, config: Config) -> Any:
    return module.make(config, intensity="hu", readers=READERS, mesh=Mesh(np.array(jax.devices()[:1]), ("data",)))


def _slices(config: Config, trained: Trained) -> ArraySpec:
    """Slices of the size of those in training: crops, or whole slices."""
    return _slice(config, int(config.data.crop_px) or int(trained.seen.get("side_px") or STORED_PX))


def _slice(config: Config, side_px: int) -> ArraySpec:
    """Slices of a size, each with its context."""
    shown = Context.of(config)
    if not shown.slices:
        return ArraySpec("hu", (side_px, side_px), "a slice of a chest CT, in HU")
    apart = f" {shown.step_mm:g} mm apart" if shown.step_mm else ""
    meaning = (
        f"a slice of a chest CT between the {shown.slices} below and the {shown.slices} above{apart}, in HU, from the "
        "lowest; where the scan ends, its last slice again"
    )
    return ArraySpec("hu", (shown.planes, side_px, side_px), meaning)


def _segment(config: Config, trained: Trained) -> Signature:
    task = _task(segment, config)

    def function(variables: Any, hu: jax.Array) -> tuple[jax.Array, ...]:
        predicted = task.predict(variables["params"], variables["model_state"], {"image": hu})
        return (jax.nn.sigmoid(predicted["logit"]),)

    tile_px = Tiling.of(config, trained.seen.get("side_px")).tile_px
    hu = _slice(config, tile_px)
    probability = ArraySpec(
        "probability", hu.shape[-2:], "of each pixel: that at least two of four readers would mark it as nodule"
    )
    return Signature(function, (hu,), (probability,))


def _pretrain(config: Config, trained: Trained) -> Signature:
    task = _task(pretrain, config)

    def function(variables: Any, hu: jax.Array) -> tuple[jax.Array, ...]:
        return (task.features(variables["params"], variables["model_state"], {"image": hu}),)

    hu = _slices(config, trained)
    (output,) = jax.eval_shape(function, trained.variables, *_specs([hu], 1))
    features = ArraySpec("features", output.shape[1:], "the encoder's last feature map, averaged")
    return Signature(function, (hu,), (features,))


def encoder_signature(trained: Trained) -> Signature:
    """The signature of any network's encoder: from windowed slices to its last feature map, averaged."""
    network = ResNet(**trained.config.model.encoder)

    def function(variables: Any, image: jax.Array) -> tuple[jax.Array, ...]:
        inner = {"params": variables["params"]["encoder"]}
        inner |= {name: state["encoder"] for name, state in variables["model_state"].items()}
        maps: Any = network.apply(inner, image[..., None], train=False)
        return (jnp.mean(maps[-1], axis=(1, 2)),)

    channels = network.width * 8 * (BOTTLENECK if network.depth == 50 else 1)
    image = ArraySpec("image", (96, 96), "a slice, windowed to [0, 1]")
    return Signature(function, (image,), (ArraySpec("features", (channels,), "the last feature map, averaged"),))


def _patches(trained: Trained, *before: int) -> tuple[ArraySpec, ArraySpec]:
    side_px = int(trained.seen.get("side_px") or SIDE_PX)
    hu = ArraySpec("hu", (*before, side_px, side_px), "CT patches with a nodule in the middle of each, in HU")
    return hu, ArraySpec("pixel_mm", before, "between pixel centres of each patch, in mm, above 0")


def _calibrated(trained: Trained, logits: jax.Array) -> jax.Array:
    """`lungjax.train.calibrate.probability`, in JAX."""
    line = trained.calibration
    return jax.nn.sigmoid(line.get("slope", 1.0) * logits + line.get("offset", 0.0))


def _sift(config: Config, trained: Trained) -> Signature:
    classifier = sift.make_candidate_classifier(config)

    def function(variables: Any, hu: jax.Array, pixel_mm: jax.Array) -> tuple[jax.Array, ...]:
        predicted = classifier(variables["params"], variables["model_state"], hu, pixel_mm)
        return (_calibrated(trained, predicted["logit"]),)

    shape = (sift.PLANES, STACK_PX, STACK_PX)
    hu = ArraySpec("hu", shape, "three CT slices 2.5 mm apart with a candidate in the middle, in HU")
    pixel_mm = ArraySpec("pixel_mm", (), "between pixel centres, in mm, above 0")
    probability = ArraySpec("probability", (), "that the candidate is a nodule, calibrated")
    return Signature(function, (hu, pixel_mm), (probability,))


def _classify(config: Config, trained: Trained) -> Signature:
    classifier = classify.make_nodule_classifier(config)

    def function(variables: Any, hu: jax.Array, pixel_mm: jax.Array) -> tuple[jax.Array, ...]:
        predicted = classifier(variables["params"], variables["model_state"], hu, pixel_mm)
        return _calibrated(trained, predicted["logit"]), predicted["ratings"]

    malignant = ArraySpec("probability", (), "that readers would call the nodule malignant, calibrated")
    ratings = ArraySpec("ratings", (len(RATING_NAMES),), f"expected of readers: {', '.join(RATING_NAMES)}")
    return Signature(function, _patches(trained), (malignant, ratings))


def _diagnose(config: Config, trained: Trained) -> Signature:
    task, nodules = _task(diagnose, config), int(config.data.nodules)

    def function(variables: Any, hu: jax.Array, pixel_mm: jax.Array, inside: jax.Array) -> tuple[jax.Array, ...]:
        batch = {"image": hu, "spacing_mm": pixel_mm, "inside": inside}
        predicted = task.predict(variables["params"], variables["model_state"], batch)
        return _calibrated(trained, predicted["logit"]), predicted["attention"]

    inside = ArraySpec("inside", (nodules,), "1 for a patch with a nodule, 0 for one that only fills up; a 1 at least")
    malignant = ArraySpec("probability", (), "that one of the patient's nodules is malignant, calibrated")
    attention = ArraySpec("attention", (nodules,), "the share of each nodule in the answer")
    return Signature(function, (*_patches(trained, nodules), inside), (malignant, attention))


def _specs(arrays: Sequence[ArraySpec], batch: Any) -> list[jax.ShapeDtypeStruct]:
    return [jax.ShapeDtypeStruct((batch, *array.shape), jnp.float32) for array in arrays]


def traceable(trained: Trained, signature: Signature) -> tuple[Any, list[jax.ShapeDtypeStruct]]:
    """The jitted network including its weights, and the shapes of its inputs, for batches of any size."""
    (batch,) = jax.export.symbolic_shape("batch")
    variables = jax.tree.map(jnp.asarray, trained.variables)
    return jax.jit(lambda *inputs: signature.function(variables, *inputs)), _specs(signature.inputs, batch)


def golden_inputs(signature: Signature) -> dict[str, np.ndarray]:
    """Inputs to compare networks on, by `BATCH.NAME`, for batches of two sizes.

    Images have dark lung, a bright wall, and nodules of growing size in the middle, with noise; spacings differ; some
    bags are padded.
    """
    inputs = {}
    for batch in GOLDEN_BATCHES:
        rng = np.random.default_rng(batch)
        for array in signature.inputs:
            inputs[f"{batch}.{array.name}"] = _golden_input(array.name, (batch, *array.shape), rng).astype(np.float32)
    return inputs


def _golden_input(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if name == "pixel_mm":
        return rng.uniform(0.5, 0.9, shape)
    if name == "inside":
        return np.arange(shape[1]) <= np.arange(shape[0])[:, None]
    rows, columns = np.mgrid[: shape[-2], : shape[-1]] / shape[-1] - 0.5
    radii = np.geomspace(0.03, 0.2, math.prod(shape[:-2])).reshape(shape[:-2])[..., None, None]
    hu = np.where((columns < -0.3) | (np.hypot(rows, columns) < radii), 40.0, -850.0)
    hu = hu + rng.normal(0, 30, shape)
    return np.clip((hu + 1000) / 1400, 0, 1) if name == "image" else hu


def run_network(trained: Trained, signature: Signature, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs for inputs; both by `BATCH.NAME`."""
    function, outputs = jax.jit(signature.function), {}
    for batch in sorted({name.split(".")[0] for name in inputs}):
        with jax.default_matmul_precision("highest"):  # Otherwise an accelerator would compute below float32.
            arrays = function(trained.variables, *(inputs[f"{batch}.{spec.name}"] for spec in signature.inputs))
        outputs |= {f"{batch}.{spec.name}": np.asarray(x) for spec, x in zip(signature.outputs, arrays, strict=True)}
    return outputs
