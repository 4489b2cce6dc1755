"""A detector that is shown neighbouring slices: trained on phantoms, scored, used on whole scans, exported."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs

import lungjax
from lungjax import cli
from lungjax.data import manifest, shards, splits
from lungjax.errors import InputError
from lungjax.evaluation import run_detection, run_evaluate
from lungjax.export import run as exporting
from lungjax.preparation import mine
from lungjax.tasks import kinds
from lungjax.tasks.task import Config
from lungjax.train import checkpoint, config_checks, loop, mesh, step, trained, transfer, workdir
from lungjax.train.state import TrainState


@pytest.fixture(scope="module")
def two_patients(phantom_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The phantoms, of which one is to train on and one to validate."""
    out = tmp_path_factory.mktemp("split") / "phantoms"
    shutil.copytree(phantom_dataset, out)
    known, index = manifest.read_manifest(out), manifest.read_index(out)
    patients = dict(zip(sorted(known["split"]["patients"]), ("train", "val"), strict=True))
    known["split"] |= {"patients": patients, "digest": splits.digest(patients)}
    index["split"] = [patients[patient] for patient in index["patient_id"]]
    manifest.replace_index(out, known, index)
    manifest.save_manifest(out, known)
    return out


def config_of(name: str, data: Path, *, context: int = 1, **choices: Any) -> Config:
    config = runs.small_config(name, data)
    config.data.slices, config.data.crop_px, config.data.context = "nodule", 32, context
    config.steps, config.log_every, config.eval_every, config.checkpoint_every = 4, 2, 4, 4
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in choices.items()})
    return config


@pytest.fixture(scope="module")
def detector(two_patients: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained; no step but the first is compiled."""
    made, make = [], step.make_train_step
    folder = tmp_path_factory.mktemp("run") / "detector"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "make_train_step", lambda *args, **more: made.append(make(*args, **more)) or made[-1])
        assert loop.train_and_evaluate(config_of("segment", two_patients), folder)
    assert [program._cache_size() for program in made] == [1]
    return folder


def test_its_first_convolution_looks_at_three_planes(detector: Path):
    variables, _ = checkpoint.load_best(detector)
    assert variables["params"]["encoder"]["stem"]["kernel"].shape == (3, 3, 3 * 2**2, 8)
    assert list((detector / "examples").glob("*.png"))
    assert workdir.read_config(detector).data.context == 1


def test_it_is_scored_on_crops_of_whole_scans_alone(detector: Path, two_patients: Path, slices_dataset: Path):
    report = run_evaluate.evaluate(detector, data=two_patients, split="val", out=None)
    assert report["data"]["context"] == 1
    assert report["pooled"]["dice"]["value"] is not None
    with pytest.raises(InputError, match=r"has the format slices, .* set config\.data\.context=0, or give whole scans"):
        run_evaluate.evaluate(detector, data=slices_dataset, split="all", out=None)


def test_it_looks_at_whole_scans(detector: Path, two_patients: Path, dicom: Path, tmp_path: Path):
    """By `evaluate --whole-scans`, `predict` and `lungjax.predict`; compiled once."""
    out = tmp_path / "found.json"
    report = run_detection.evaluate(detector, candidate_classifier=None, data=dicom, split="all", out=out)
    assert report["scans"] == 2
    index = manifest.read_index(two_patients)
    trained_on = index[index["split"] == "train"].iloc[0]
    assert trained_on["series_uid"] not in report["refused"]
    model = lungjax.load(detector)
    first = dicom / "LIDC-IDRI" / str(trained_on["patient_id"])
    scan = lungjax.read_scan(first)
    found = lungjax.predict(scan, model=model, candidate_classifier=None, nodule_classifier=None, threshold=0.5)
    assert model.compilations == 1
    assert found.refused is None
    volume = model.volume(scan.hu, np.ones(scan.hu.shape, bool), slice_mm=scan.spacing_mm[0])
    np.testing.assert_allclose(model.predict(scan.hu), volume, atol=1e-3)  # In 16 bits.
    assert cli.main(["predict", str(first), "--model", str(detector), "--out", str(tmp_path / "out")]) == 0
    assert model.compilations == 1


@pytest.mark.parametrize("format", ["safetensors", "stablehlo", "onnx"])
def test_exported_it_gives_the_same(detector: Path, tmp_path: Path, format: exporting.Format):
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    out = exporting.export(detector, tmp_path / format, format=format)
    hu = (np.random.default_rng(0).normal(-700, 300, (5, 40, 60))).astype(np.int16)
    wanted = lungjax.load(detector).predict(hu)
    assert np.ptp(wanted) > 0
    np.testing.assert_allclose(lungjax.load(out).predict(hu), wanted, atol=1e-4)
    card = (out / "README.md").read_text()
    side_px = lungjax.load(detector).tiling.tile_px
    assert f"np.full((4, 3, {side_px}, {side_px}), -850, np.int16)" in card
    assert "between the 1 below and the 1 above" in card
    used = card.split("With lungjax:")[-1].split("```python\n")[1].split("```")[0]
    code = used.replace('lungjax.load(".")', f"lungjax.load({str(out)!r})")
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["probability"].shape == (4, side_px, side_px)
    if format == "safetensors":
        with pytest.raises(InputError, match=r"is shown neighbouring slices .* export it in another format"):
            exporting.export(detector, tmp_path / "other", format="torchvision")


def test_it_is_mined_for_candidates_in_whole_scans_alone(
    detector: Path, two_patients: Path, slices_dataset: Path, tmp_path: Path
):
    with pytest.raises(InputError, match="has the format slices, without the slices around"):
        mine.mine(detector, [two_patients, slices_dataset], tmp_path / "no")
    assert not (tmp_path / "no").exists()
    model = trained.open_trained(detector)
    model.variables["params"]["head"]["bias"] += 5
    eager = tmp_path / "eager"
    eager.mkdir()
    trained.write_exported(model, eager, dtype="float32")
    summary = mine.mine(eager, [two_patients], tmp_path / "out")
    assert summary.scans == 2
    with pytest.raises(InputError, match="has the format candidates"):
        loop.train_and_evaluate(config_of("segment", tmp_path / "out"), tmp_path / "run")


def test_crops_are_refused_before_anything_is_built(
    slices_dataset: Path, two_patients: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(step, "make_optimizer", None)
    monkeypatch.setattr(loop, "check_config", lambda *_, **more: None)
    config = config_of("segment", slices_dataset)
    with pytest.raises(InputError, match=r"config\.data\.context needs them; set config\.data\.context=0"):
        loop.train_and_evaluate(config, tmp_path / "run")
    config = config_of("segment", two_patients)
    config.data.parts.crops = {"path": str(slices_dataset), "slices": "nodule", "crop_at": "nodule", "rate": 1.0}
    with pytest.raises(InputError, match=r"config\.data\.context needs them; set config\.data\.context=0"):
        loop.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_parts_of_whole_scans_are_mixed_with_context(two_patients: Path, tmp_path: Path):
    config = config_of("segment", two_patients, data__context_mm=5.0, steps_per_dispatch=2, data__placement="device")
    for name, crop_at in (("nodules", "nodule"), ("lungs", "lung")):
        part = {"path": str(two_patients), "slices": "all", "crop_at": crop_at, "rate": 1.0}
        config.data.parts[name] = part
    assert loop.train_and_evaluate(config, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("losses", ["contrast", pytest.param("masked", marks=pytest.mark.exhaustive)])
def test_an_encoder_is_pretrained_with_context_and_handed_on(two_patients: Path, tmp_path: Path, losses: str):
    before = config_of("simclr", two_patients, data__slices="all", positives="neighbours")
    before.model.decoder = (16, 8, 8)
    if losses == "masked":
        before.positives, before.dense_weight, before.masked_weight = "views", 1.0, 1.0
    assert loop.train_and_evaluate(before, tmp_path / "before")
    features = lungjax.load(tmp_path / "before").embed(np.zeros((4, 32, 32), np.int16))
    assert features.shape == (4, 64)
    after = config_of("segment", two_patients, init_from=str(tmp_path / "before"), optimizer__learning_rate=1e-9)
    assert loop.train_and_evaluate(after, tmp_path / "after")
    theirs, ours = (checkpoint.load_best(tmp_path / run)[0]["params"] for run in ("before", "after"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), theirs["encoder"], ours["encoder"])
    if losses == "contrast":
        for context in (0, 2):
            after = config_of("segment", two_patients, context=context, init_from=str(tmp_path / "before"))
            with pytest.raises(InputError, match=r"was trained with config\.data\.context=1, .* set the same"):
                loop.train_and_evaluate(after, tmp_path / f"after-{context}")


@pytest.mark.parametrize("stem", ["patch", "conv"])
def test_it_begins_as_a_network_without_context_does(tmp_path: Path, stem: str):
    """Whatever the neighbours show; and its first convolution can learn to look at them."""
    configs = [config_of("segment", tmp_path, context=context) for context in (0, 2)]
    for config in configs:
        config.model.encoder.stem = stem
    devices = mesh.make_mesh(8)
    tasks = [kinds.TASKS["segment"](config, intensity="hu", readers=4, mesh=devices) for config in configs]
    rng = np.random.default_rng(0)
    image = jnp.asarray(rng.normal(-700, 300, (2, 5, 32, 32)), jnp.float32)
    theirs, _ = jax.jit(tasks[0].init)(jax.random.key(0), {"image": image[:, 2]})
    fresh, _ = jax.jit(tasks[1].init)(jax.random.key(1), {"image": image})
    source: Any = SimpleNamespace(config=configs[0], variables={"params": theirs, "model_state": {}}, path="a", step=1)
    empty = TrainState(jnp.zeros((), jnp.int32), fresh, {}, {}, None)
    state, said = transfer.load_weights(empty, source, task="segment", planes=5)
    assert "all of them. Neighbouring slices begin with weights of 0." in said
    wanted = jax.jit(tasks[0].predict)(theirs, {}, {"image": image[:, 2]})
    for name, values in jax.jit(tasks[1].predict)(state.params, {}, {"image": image}).items():
        np.testing.assert_allclose(values, wanted[name], atol=1e-5)
    batch = {"image": image, "readers": jnp.ones((2, 32, 32), jnp.uint8), "weight": jnp.ones(2, jnp.float32)}
    grads_of = jax.jit(jax.grad(lambda params: tasks[1].loss_fn(params, {}, batch, jax.random.key(2))[0]))
    grads = grads_of(state.params)
    pixels = grads["encoder"]["stem"]["kernel"].reshape(3, 3, -1, 5, 8)
    assert (jnp.abs(pixels).max(axis=(0, 1, 2, 4)) > 0).all()
    with pytest.raises(InputError, match=r"give both runs the same config\.model\.encoder"):
        transfer.load_weights(empty, source, task="segment")


def test_what_a_configuration_says_of_context_is_checked(tmp_path: Path):
    config = config_of("segment", tmp_path, context=0, data__context_mm=2.5)
    with pytest.raises(InputError, match=r"config\.data\.context_mm is 2\.5, but config\.data\.context is 0"):
        config_checks.check(config)
    with pytest.raises(InputError, match=r"config\.data\.context is -1; it must be at least 0"):
        config_checks.check(config_of("segment", tmp_path, context=-1))
    for name in ("sift", "classify", "diagnose"):
        other = runs.load_config(name)
        with other.unlocked():
            other.data.context = 1
        with pytest.raises(InputError, match=r"a network of the task \w+ is shown no neighbouring slices; set it to 0"):
            config_checks.check(other)


def test_a_run_from_before_there_was_context_goes_on(slices_dataset: Path, tmp_path: Path):
    """Its configuration has no such key, and means 0."""
    config = config_of("segment", slices_dataset, context=0)
    patients = shards.open_dataset(slices_dataset).manifest["split"]["patients"]
    older = config.copy_and_resolve_references()
    with older.unlocked():
        del older.data.context, older.data.context_mm
    workdir.record_run(tmp_path, older, patients, intensity="unit", seen={})
    workdir.check_begun(tmp_path, config, patients)
    config.data.context = 1
    with pytest.raises(InputError, match=r"was started with another config\.data\.context \(0\)"):
        workdir.check_begun(tmp_path, config, patients)
