"""`lungjax.load`: every bundled model and every exported folder, with arrays of any number."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax
import networks
import numpy as np
import pytest

import lungjax
from lungjax.errors import InputError
from lungjax.export import run as exporting
from lungjax.export import signature
from lungjax.prediction import encoder, nodule_classifier, sliding_window
from lungjax.tasks import pretrain
from lungjax.train import mesh, trained

CLASSES = {
    "segment": lungjax.Segmenter,
    "simclr": lungjax.Encoder,
    "sift": lungjax.CandidateClassifier,
    "classify": lungjax.NoduleClassifier,
    "diagnose": lungjax.PatientClassifier,
}


def hounsfield(*shape: int, seed: int = 0) -> np.ndarray:
    """int16: lung with noise, a nodule of growing size in the middle of each slice."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[-2], : shape[-1]]
    apart = np.hypot(rows - shape[-2] / 2, columns - shape[-1] / 2)
    radii = np.linspace(3, 12, int(np.prod(shape[:-2]))).reshape(*shape[:-2], 1, 1)
    return (np.where(apart < radii, 40, -850) + rng.normal(0, 30, shape)).astype(np.int16)


def answer(model: Any, number: int, side_px: int) -> list[np.ndarray]:
    """What a model of any task predicts of the first `number` of the same slices, patches or patients."""
    hu, mm = hounsfield(40, side_px, side_px), np.linspace(0.5, 0.9, 40)
    if isinstance(model, lungjax.Segmenter):
        return [model.predict(hu[:number])]
    if isinstance(model, lungjax.Encoder):
        return [model.embed(hu[:number])]
    if isinstance(model, lungjax.CandidateClassifier):
        stacks = np.repeat(hu[:, None], 3, axis=1)
        stacks[:, 0] = -850
        return [model.predict(stacks[:number], mm[:number])]
    if isinstance(model, lungjax.NoduleClassifier):
        predicted = model.predict(hu[:number], mm[:number])
        return [predicted.probability, predicted.ratings]
    bags, bags_mm = hu.reshape(20, 2, side_px, side_px), mm.reshape(20, 2)
    predicted = model.predict(bags[:number], bags_mm[:number])
    return [predicted.probability, predicted.attention]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("segmenter", lungjax.Segmenter),
        ("detector", lungjax.Segmenter),
        ("candidate-classifier", lungjax.CandidateClassifier),
        ("nodule-classifier", lungjax.NoduleClassifier),
        ("grader", lungjax.NoduleClassifier),
        ("patient-classifier", lungjax.PatientClassifier),
        ("patient", lungjax.PatientClassifier),
        ("encoder", lungjax.Encoder),
    ],
)
def test_every_bundled_model_opens_by_its_names(name: str, kind: type):
    model = lungjax.load(name)
    assert type(model) is kind
    assert model.trained.path.is_relative_to(trained.SHIPPED)


def test_every_bundled_model_has_a_name_here():
    names = {"segmenter", "detector", "candidate-classifier", "nodule-classifier", "patient-classifier", "encoder"}
    assert set(trained.bundled_models()) == names
    assert {*trained.ALIASES.values()} < names


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: networks.made(kind, folder / kind) for kind in networks.TASKS}


@pytest.mark.parametrize("kind", networks.TASKS)
def test_predictions_do_not_depend_on_how_many_there_are(kind: str, models: dict[str, Path]):
    """Bit for bit; more than one batch of each, less than one, none."""
    model = lungjax.load(models[kind])
    assert type(model) is CLASSES[kind]
    most = 20 if kind == "diagnose" else 40
    assert most > {"segment": sliding_window.BATCH, "simclr": encoder.BATCH, "classify": nodule_classifier.BATCH}.get(
        kind, 1
    )
    every = answer(model, most, 64)
    for number in (0, 1, 5):
        for one, other in zip(answer(model, number, 64), every, strict=True):
            assert one.shape == (number, *other.shape[1:])
            np.testing.assert_array_equal(one, other[:number])
    assert all(np.isfinite(output).all() for output in every)
    assert max(np.ptp(output, axis=0).max() for output in every) > 1e-3, "it predicts the same of all"


def test_it_is_compiled_once_for_images_of_one_size(models: dict[str, Path]):
    model = lungjax.load(models["segment"])
    for number in (1, 40, 3):
        model.predict(hounsfield(number, 64, 64))
    model.predict(hounsfield(2, 80, 100))
    assert model.compilations == 1
    with jax.log_compiles(), pytest.MonkeyPatch.context() as patch:
        classifier, compiled = lungjax.load(models["classify"]), []
        patch.setattr("jax._src.interpreters.pxla.logger.log", lambda _, text, *rest: compiled.append(text))
        classifier.predict(hounsfield(3, 40, 40), 0.7)
        once = len(compiled)
        classifier.predict(hounsfield(40, 40, 40), 0.7)
    assert once > 0
    assert len(compiled) == once


def test_a_slice_of_another_size_is_tiled(models: dict[str, Path]):
    """Where a slice is larger than the network's, it is what `predict` of a whole scan sees, in every place."""
    model = lungjax.load(models["segment"])
    hu = hounsfield(2, 100, 90)
    probability = model.predict(hu)
    assert (probability.shape, probability.dtype) == (hu.shape, np.float32)
    region = np.ones(hu.shape, bool)
    np.testing.assert_allclose(probability, model.volume(hu, region), atol=1e-3)  # In 16 bits.
    assert (probability > 0).all()
    small = model.predict(hounsfield(1, 30, 20))
    assert small.shape == (1, 30, 20)
    own = model.predict(hu[:, :64, :64])
    np.testing.assert_array_equal(own, model.tiles(hu[:, :64, :64]))


def test_an_encoder_gives_the_features_of_its_training(models: dict[str, Path]):
    """Those that probes are trained on, of slices of several sizes."""
    model = lungjax.load(models["simclr"])
    known = model.trained
    task = pretrain.make(known.config, intensity="hu", readers=4, mesh=mesh.make_mesh(8))
    for side_px in (64, 48):
        hu = hounsfield(3, side_px, side_px)
        assert task.features is not None
        wanted = task.features(known.variables["params"], known.variables["model_state"], {"image": hu})
        features = model.embed(hu.astype(np.float64))
        assert (features.shape, features.dtype) == ((3, model.channels), np.float32)
        np.testing.assert_allclose(features, wanted, atol=1e-5)
    with pytest.raises(InputError, match="slices of hu are 40 x 48; both must be multiples of 16"):
        model.embed(hounsfield(1, 40, 48))


@pytest.fixture(scope="module", params=networks.TASKS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("format", ["orbax", "stablehlo", "onnx"])
def test_every_exported_folder_opens(kind: str, format: exporting.Format, models: dict[str, Path], tmp_path: Path):
    """And predicts what the weights themselves do."""
    known = trained.open_trained(models[kind])
    exporting._write(known, signature.network_signature(known), tmp_path, format, "float32")
    model = lungjax.load(tmp_path)
    assert type(model) is CLASSES[kind]
    side_px = signature.network_signature(known).inputs[0].shape[-1]
    for number in (0, 1, 20):
        wanted = answer(lungjax.load(models[kind]), number, side_px)
        for one, other in zip(answer(model, number, side_px), wanted, strict=True):
            assert (one.shape, one.dtype) == (other.shape, other.dtype)
            np.testing.assert_allclose(one, other, atol=2e-5, rtol=2e-5)
    if format in ("stablehlo", "onnx") and kind != "segment":  # Which lays tiles.
        with pytest.raises(InputError, match=f"was exported for hu of .*{side_px} x {side_px} each, and is given"):
            answer(model, 1, 2 * side_px)


def test_a_segmenter_without_weights_predicts_a_whole_scan(models: dict[str, Path], tmp_path: Path):
    """One from StableHLO does all that one from weights does."""
    known = trained.open_trained(models["segment"])
    exporting._write(known, signature.network_signature(known), tmp_path, "stablehlo", "float32")
    hu, region = hounsfield(2, 100, 90), np.ones((2, 100, 90), bool)
    wanted = lungjax.load(models["segment"]).volume(hu, region)
    np.testing.assert_allclose(lungjax.load(tmp_path).volume(hu, region), wanted, atol=1e-3)


def test_torchvisions_weights_open_as_an_encoder(tmp_path: Path):
    model = networks.made("classify", tmp_path / "model", depth=18, width=64, norm="batch", stem="torchvision")
    known = trained.open_trained(model)
    (tmp_path / "out").mkdir()
    exporting._write(known, signature.encoder_signature(known), tmp_path / "out", "torchvision", "float32")
    found = lungjax.load(tmp_path / "out")
    assert type(found) is lungjax.Encoder
    hu = hounsfield(3, 64, 64)
    centre, width = known.config.patch.window_hu
    image = np.clip((hu - centre) / width + 0.5, 0, 1).astype(np.float32)
    (wanted,) = signature.encoder_signature(known).function(known.variables, image)
    np.testing.assert_allclose(found.embed(hu), wanted, atol=1e-4)
    (tmp_path / "out" / trained.TORCHVISION_FILE).write_bytes(b"")
    with pytest.raises(InputError, match="is not an exported model, or is damaged"):
        lungjax.load(tmp_path / "out")


def test_what_cannot_be_opened(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match=r"nor the name of a bundled model \(candidate-classifier, detector, encoder"):
        lungjax.load("grade")
    known = trained.open_trained(models["classify"])
    mistakes: tuple[tuple[exporting.Format, str], ...] = (
        ("stablehlo", r"jax .* cannot open model\.stablehlo"),
        ("onnx", r"ONNX Runtime cannot open model\.onnx"),
    )
    for format, says in mistakes:
        out = tmp_path / format
        out.mkdir()
        exporting._write(known, signature.network_signature(known), out, format, "float32")
        (out / f"model.{format}").write_bytes(b"no program")
        with pytest.raises(InputError, match=says):
            lungjax.load(out)
        (out / "config.json").write_text("{}")
        with pytest.raises(InputError, match="is not an exported model, or is damaged"):
            lungjax.load(out)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    exporting.write_description(known, tmp_path / "onnx", inputs=[])
    with pytest.raises(InputError, match=r"pip install 'lungjax\[onnx\]'"):
        lungjax.load(tmp_path / "onnx")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"hu": np.zeros((71, 71))}, r"it must be \(nodules, rows, columns\)"),
        ({"hu": np.full((2, 71, 71), np.inf)}, "NaN, or numbers that are no Hounsfield units"),
        ({"pixel_mm": np.ones(3)}, r"pixel_mm has shape \(3,\); it must be one number, or have shape \(2,\)"),
        ({"pixel_mm": -0.7}, "not above 0"),
        ({"pixel_mm": np.nan}, "not above 0"),
    ],
)
def test_arrays_that_are_no_patches(changed: dict[str, Any], says: str):
    model = lungjax.load("nodule-classifier")
    with pytest.raises(InputError, match=says):
        model.predict(**{"hu": hounsfield(2, 71, 71), "pixel_mm": 0.7, **changed})


def test_one_distance_is_that_of_all_patches():
    model = lungjax.load("nodule-classifier")
    hu = hounsfield(3, 71, 71)
    one, each = model.predict(hu, 0.7), model.predict(hu, np.full(3, 0.7))
    np.testing.assert_array_equal(one.probability, each.probability)
    assert one.rating_names[-1] == "malignancy"
    assert one.ratings.shape == (3, len(one.rating_names))
    assert ((one.ratings >= 1) & (one.ratings <= 6)).all()
