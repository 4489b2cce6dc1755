"""Patients from training to figures; labels of bags by hand, of readers and of a CSV."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import patches as made
import pytest
import runs

from lungjax.data import bags, shards
from lungjax.errors import InputError
from lungjax.evaluation import run_evaluate, run_patient_classifier
from lungjax.export import run as exporting
from lungjax.preparation.run import prepare
from lungjax.tasks import diagnose
from lungjax.train import loop, mesh, trained


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patients")
    columns = made.columns(patients=60)
    columns["patient_id"][:12] = columns["patient_id"][0]  # One with twelve nodules, in six series.
    np.savez_compressed(folder / "patches.npz", allow_pickle=True, **columns)
    prepare(folder / "patches.npz", folder / "prepared", workers=1)
    return folder / "prepared"


def small(data: Path):
    config = runs.load_config("diagnose")
    config.data.path = str(data)
    config.data.batch_size = 8
    config.model.encoder.width = config.model.width = config.model.hidden = 8
    config.steps = config.eval_every = config.checkpoint_every = 20
    config.average_decay = 0.9
    config.optimizer.learning_rate = 1e-2
    return config


def test_a_patients_label_is_that_of_the_worst_nodule():
    for nodules, patient in (([0, 0], 0), ([0, 1], 1), ([np.nan, 1], 1), ([0, np.nan], np.nan), ([np.nan], np.nan)):
        np.testing.assert_equal(bags._label_from_nodules(np.array(nodules, float)), patient)


def test_bags_hold_the_patients_nodules(data: Path):
    dataset = shards.open_dataset(data)
    read = bags.Bags(dataset, nodules=4)
    ids = dataset.index["patient_id"].to_numpy()
    large = int(np.argmax([len(rows) for rows in read.members]))
    batch = read.batch(np.array([large, (large + 1) % len(read.patients)]))
    assert batch["image"].shape == (2, 4, made.SIDE_PX, made.SIDE_PX)
    np.testing.assert_array_equal(batch["inside"], [[1, 1, 1, 1], [1, 1, 0, 0]])
    for place, number in enumerate((large, (large + 1) % len(read.patients))):
        own = np.flatnonzero(ids == read.patients[number])
        for slot in range(4):
            wanted = dataset.pixels([own[slot % len(own)]])[0][0]
            np.testing.assert_array_equal(batch["image"][place, slot], wanted)
    seen = {read.batch(np.array([large]), np.full((1, 3), u))["image"][0].tobytes() for u in np.linspace(0, 0.99, 12)}
    assert len(seen) == 12  # In training each time others of the twelve.
    val = read.rows(split="val", slices="rated")
    assert set(dataset.index["split"][np.concatenate([read.members[row] for row in val])]) == {"val"}
    assert not np.isnan(read.patient_label[val]).any()


def test_labels_of_a_file_are_read_as_the_sheet_codes_them(data: Path, tmp_path: Path):
    dataset = shards.open_dataset(data)
    patients = sorted(set(dataset.index["patient_id"]))[:4]
    lines = [f"{patient},{code}" for code, patient in enumerate(patients)]
    file = tmp_path / "labels.csv"
    file.write_text("\n".join(["patient_id,label", *lines]))
    read = bags.Bags(dataset, nodules=2, labels=str(file))
    np.testing.assert_array_equal(read.patient_label[:5], [np.nan, 0, 1, 1, np.nan])
    file.write_text("Label;Patient_ID\n1;A\n2;B\n")
    assert bags.read_labels(file) == {"A": 0.0, "B": 1.0}
    for content, says in (
        ("patient_id,label\nA,4", "line 2: the label '4' is none of 0, 1, 2, 3"),
        ("patient_id,label\nA,1\nA,2", "line 3: A has the label 2, and 1 above"),
        ("who,what\nA,1", "no column 'patient_id'; it has who, what"),
        (None, "cannot be read"),
    ):
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_text(content)
        with pytest.raises(InputError, match=rf"labels\.csv.*{says}"):
            bags.read_labels(file)


def test_what_fills_a_bag_up_changes_no_loss_no_gradient_and_no_statistic(data: Path):
    config = small(data)
    task = diagnose.make(config, intensity="hu", readers=4, mesh=mesh.make_mesh(8))
    read = bags.Bags(shards.open_dataset(data), nodules=3)
    batch = {name: jnp.asarray(part) for name, part in read.batch(np.arange(8)).items()}
    filling = batch["inside"] == 0
    assert 0 < int(filling.sum()) < filling.size
    fresh = task.init(jax.random.key(0), batch)
    step = jax.jit(jax.value_and_grad(task.loss_fn, has_aux=True))
    (loss, (figures, state)), gradients = step(*fresh, batch, jax.random.key(1))
    noise = jax.random.randint(jax.random.key(2), batch["image"].shape, -1000, 400, jnp.int16)
    noisy = {**batch, "image": jnp.where(filling[:, :, None, None], noise, batch["image"])}
    (again, (same, state_again)), same_gradients = step(*fresh, noisy, jax.random.key(1))
    assert float(again) == pytest.approx(float(loss), rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), same, figures)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), state_again, state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), same_gradients, gradients)
    inner = {**batch, "image": jnp.where(filling[:, :, None, None], batch["image"], noise)}
    assert float(step(*fresh, inner, jax.random.key(1))[0][0]) != pytest.approx(float(loss), rel=1e-3)


def test_a_run_answers_for_patients(data: Path, tmp_path: Path):
    workdir = tmp_path / "run"
    assert loop.train_and_evaluate(small(data), workdir)
    assert trained.open_trained(workdir).calibration["fitted_on"] >= 2
    assert (workdir / "examples" / "0000020.png").stat().st_size > 1000
    report = run_evaluate.evaluate(workdir, data=None, split="test", out=None)
    dataset = shards.open_dataset(data)
    read = bags.Bags(dataset, nodules=3)
    assert report["nodules"] == report["patients"] == len(read.rows(split="test", slices="rated"))
    assert set(report["others"]) == {"highest nodule"}
    for name in ("roc", "reliability", "attention"):
        assert (workdir / f"evaluation-test.{name}.png").stat().st_size > 1000
    assert json.loads((workdir / "evaluation-test.json").read_text()) == report
    card = (exporting.export(workdir, tmp_path / "out", dtype="float16") / "README.md").read_text()
    assert "calibration | sigmoid(" in card
    assert "| roc_auc |" in card
    found = run_patient_classifier.score_split(trained.open_trained(workdir), dataset, split="all")
    assert len(found.logit) == np.count_nonzero(~np.isnan(read.patient_label))
    half = np.arange(len(found.logit)) % 2 == 0
    again = run_patient_classifier.pooled([found.only(half), found.only(~half)])
    assert (
        run_patient_classifier.score_figures(again)["roc_auc"]["value"]
        == run_patient_classifier.score_figures(found)["roc_auc"]["value"]
    )
    assert (
        len(
            run_patient_classifier.draw_charts(
                again, run_patient_classifier.score_figures(again), tmp_path / "pooled.json"
            )
        )
        == 2
    )
    np.testing.assert_allclose(found.attention.sum(axis=1), 1, rtol=1e-5)
    assert "patients, " in (workdir / "evaluation-test.table.txt").read_text()
