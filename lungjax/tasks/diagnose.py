"""Classification of patients by multiple-instance learning: is any nodule cancer, and which one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lungjax import losses
from lungjax.ct.scan import Intensity
from lungjax.data import augment, distort
from lungjax.data.intensity import window
from lungjax.models.patient_net import PatientNet
from lungjax.tasks import accumulation, classify
from lungjax.tasks.task import Config, Metrics, Task


def network(config: Config) -> PatientNet:
    """The network of a configuration."""
    return PatientNet(grader=classify.network(config), attention=config.model.attention)


def _make_images(config: Config) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """A function of HU (bags * nodules, side, side) and `inside` (bags, nodules) -> the network's images."""

    def images(hu: jax.Array, inside: jax.Array) -> jax.Array:
        return window(hu, tuple(config.patch.window_hu)).reshape(*inside.shape, *hu.shape[1:], 1)

    return images


def make_patient_classifier(config: Config) -> Callable[..., dict[str, jax.Array]]:
    """The network with resampling and windowing: (params, model_state, hu, spacing_mm, inside) -> predictions by name.

    `hu` is (bags, nodules, rows, columns); `spacing_mm`, between pixel centres, and `inside`, as for `PatientNet`, are
    (bags, nodules). Predicts, in float32, `logit` (bags,) of the patient, `attention` (bags, nodules) of sum 1, and
    `nodule_logit` (bags, nodules), each nodule's own logit of malignancy, -inf where the bag is padded.
    """
    model, images_of = network(config), _make_images(config)
    resize = functools.partial(distort.resize, side_px=config.patch.side_px, pixel_mm=config.patch.pixel_mm)

    def classifier(
        params: Any, model_state: Any, hu: jax.Array, spacing_mm: jax.Array, inside: jax.Array
    ) -> dict[str, jax.Array]:
        patches = resize(hu.reshape(-1, *hu.shape[2:]), spacing_mm.reshape(-1))
        outputs: Any = model.apply({"params": params, **model_state}, images_of(patches, inside), inside, train=False)
        logit, attention, logits, _ = outputs
        own = jnp.where(inside > 0, logits[:, 0].reshape(inside.shape), -jnp.inf)
        return {"logit": logit, "attention": attention, "nodule_logit": own}

    return classifier


def make(config: Config, *, intensity: Intensity, readers: int, mesh: Mesh) -> Task:
    """The task of `configs/diagnose.py`; arguments as for `classify.make`.

    It predicts what `make_patient_classifier` predicts.
    """
    del intensity, readers
    model, images_of = network(config), _make_images(config)
    apply = accumulation.training(model, config, mesh)
    classifier = make_patient_classifier(config)
    side_px, pixel_mm = config.patch.side_px, config.patch.pixel_mm
    view = jax.vmap(functools.partial(augment.nodule, side_px=side_px, pixel_mm=pixel_mm, **config.augment))

    def init(rng: jax.Array, batch: Any) -> tuple[Any, Any]:
        inside = jnp.ones((2, batch["inside"].shape[1]), jnp.float32)
        x = jnp.zeros((*inside.shape, side_px, side_px, 1), jnp.float32)
        variables = model.init(rng, x, inside, train=False)
        return variables["params"], {k: v for k, v in variables.items() if k != "params"}

    def flat(batch: Any) -> Any:
        """The nodules of all bags as a batch for `classify`."""
        names = ("image", "readers", "ratings", "spacing_mm")
        nodules = {name: batch[name].reshape(-1, *batch[name].shape[2:]) for name in names}
        weight = (batch["inside"] * batch["weight"][:, None]).reshape(-1)
        return {**nodules, "label": batch["nodule_label"].reshape(-1), "weight": weight}

    def loss_fn(params: Any, model_state: Any, batch: Any, rng: jax.Array) -> tuple[jax.Array, tuple[Metrics, Any]]:
        view_rng, drop_rng = jax.random.split(rng)
        nodules = flat(batch)
        keys = jax.random.split(view_rng, nodules["image"].shape[0])
        marked = classify.share_marked(nodules["readers"])
        hu, marked = view(keys, nodules["image"].astype(jnp.float32), marked, nodules["spacing_mm"])
        images = images_of(hu, batch["inside"])
        (logit, _, logits, pixels), model_state = apply(params, model_state, drop_rng, images, batch["inside"])
        each, figures = classify.nodule_loss(config, logits, pixels, marked, nodules)
        label, weight = classify.labels(batch["label"])
        patient = losses.weighted_mean(losses.sigmoid_cross_entropy(logit, label), weight * batch["weight"])
        return patient + config.nodule_weight * each, ({**figures, "patient_cross_entropy": patient}, model_state)

    def predict(params: Any, model_state: Any, batch: Any) -> dict[str, jax.Array]:
        return classifier(params, model_state, batch["image"], batch["spacing_mm"], batch["inside"])

    def eval_fn(params: Any, model_state: Any, batch: Any, rng: jax.Array) -> Metrics:
        del rng
        return classify.binned_sums(predict(params, model_state, batch)["logit"], batch)

    return Task(
        name="diagnose",
        init=init,
        loss_fn=loss_fn,
        eval_fn=eval_fn,
        summarize=classify.loss_and_auc,
        predict=predict,
        best="auc",
        calibrated="logit",
    )
