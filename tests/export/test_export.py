"""`lungjax export`: the same answers from the folder as from the run, and a card that says what it is."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest

from lungjax import cli
from lungjax.errors import InputError
from lungjax.export import run as exporting
from lungjax.train import checkpoint, trained, transfer, workdir
from lungjax.train.state import TrainState


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.workdir("segment", tmp_path_factory.mktemp("segment"))


def test_weights_come_back(run: Path, tmp_path: Path):
    """Bit for bit in float32, rounded once in float16; the tensors are the averaged ones, in a file of known format."""
    original, step = checkpoint.load_best(run)
    for dtype in ("float32", "float16"):
        exporting.export(run, tmp_path / dtype, dtype=dtype)
        found = trained.open_trained(tmp_path / dtype)
        assert (found.step, found.config.to_dict()) == (step, workdir.read_config(run).to_dict())
        for one, other in zip(jax.tree.leaves(original), jax.tree.leaves(found.variables), strict=True):
            assert other.dtype == np.float32
            np.testing.assert_array_equal(one.astype(dtype).astype(np.float32), other)
    raw = (tmp_path / "float16" / "model.safetensors").read_bytes()  # 8 bytes of length, JSON, tensors.
    header = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])
    assert header["params/encoder/stem/kernel"]["dtype"] == "F16"
    assert sum(np.prod(t["shape"]) for n, t in header.items() if n != "__metadata__") == sum(
        leaf.size for leaf in jax.tree.leaves(original)
    )


def test_the_card_says_what_it_is(run: Path, tmp_path: Path):
    report = trained.open_trained(Path("segmenter")).figures["evaluation-test.json"]
    (run / "evaluation-test.json").write_text(json.dumps(report))
    assert cli.main(["export", "--model", str(run), "--out", str(tmp_path / "out")]) == 0
    (run / "evaluation-test.json").unlink()
    card = (tmp_path / "out" / "README.md").read_text()
    digest = json.loads((run / "split.json").read_text())["digest"]
    off = "these lay up to 19 px off the middle of 64 x 64"  # A quarter of them, and 5 % of shift.
    for part in (digest, "not a medical device", "CC BY 3.0", "python -m lungjax.main", "parity", off):
        assert part in card
    assert f"| dice | {report['pooled']['dice']['value']:.3f} [" in card
    again = exporting.export(tmp_path / "out", tmp_path / "again", dtype="float32")
    assert (again / "README.md").read_text() == card  # What an export knows, its own export knows.


def test_a_pretrained_encoders_card_has_the_figures_of_its_step(tmp_path: Path):
    run = networks.workdir("simclr", tmp_path / "run")
    step = trained.open_trained(run).step
    lines = [{"step": step - 1, "val/accuracy": 0.75}, {"step": step, "train/loss": 2.0}]
    lines.append({"step": step, "val/accuracy": 0.25, "val/knn_auc_nodule": 0.625})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    card = (exporting.export(run, tmp_path / "out") / "README.md").read_text()
    assert "| accuracy | 0.250 |\n| knn_auc_nodule | 0.625 |" in card
    assert "0.750" not in card


def test_an_export_that_answers_otherwise_is_refused(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exporting, "write_exported", networks.damaging(exporting.write_exported))
    with pytest.raises(InputError, match="predictions differ"):
        exporting.export(run, tmp_path / "out", dtype="float32")
    assert list(tmp_path.iterdir()) == []


def test_a_shipped_model_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A name is that of a shipped model, unless something of that name lies here."""
    monkeypatch.setattr(trained, "SHIPPED", tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    networks.made("simclr", tmp_path / "weights" / "mine")
    assert trained.bundled_models() == ["mine"]
    assert trained.open_trained(Path("mine")).path == tmp_path / "weights" / "mine"
    for stranger in ("../weights/mine/..", ".", "other"):
        with pytest.raises(InputError, match="nor the name of a bundled model"):
            trained.open_trained(Path(stranger))
    networks.made("simclr", tmp_path / "mine")
    assert trained.open_trained(Path("mine")).path == Path("mine")


def test_what_cannot_be_exported_or_opened(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert cli.main(["export", "--model", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 2
    assert "neither a run's workdir nor an exported folder" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    assert cli.main(["export", "--model", str(run), "--out", str(tmp_path / "full")]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    (run / "evaluation-mine.json").write_text("{")
    assert cli.main(["export", "--model", str(run), "--out", str(tmp_path / "out")]) == 2
    assert "evaluation-mine.json is damaged" in capsys.readouterr().err
    (run / "evaluation-mine.json").unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]
    whole = networks.made("simclr", tmp_path / "whole")
    weights = whole / "model.safetensors"
    for content in (b"", b"no tensors", weights.read_bytes()[:-4]):
        weights.write_bytes(content)
        with pytest.raises(InputError, match="is damaged"):
            trained.open_trained(whole)


def test_a_run_starts_from_an_exported_encoder(tmp_path: Path):
    """The average of its weights, too, for a validation at the first step sees that."""
    source = trained.open_encoder(networks.made("simclr", tmp_path / "exported"))
    target = trained.open_trained(networks.made("segment", tmp_path / "target")).variables
    params, model_state = jax.tree.map(jnp.zeros_like, (target["params"], target["model_state"]))
    empty = TrainState(jnp.zeros((), jnp.int32), params, model_state, {}, (params, model_state))
    state, _ = transfer.load_weights(empty, source, task="segment")
    for found in (state.params, state.scored[0]):
        jax.tree.map(np.testing.assert_array_equal, found["encoder"], source.variables["params"]["encoder"])
        assert not any(leaf.any() for name in found if name != "encoder" for leaf in jax.tree.leaves(found[name]))


@pytest.mark.parametrize("name", ["grader", "nodule-classifier"])
def test_a_run_starts_from_a_bundled_model_by_either_name(name: str):
    assert trained.open_encoder(Path(name)).path == trained.SHIPPED / "nodule-classifier"


@pytest.mark.parametrize("kind", ["segment", "simclr", "classify"])
def test_a_run_of_the_same_task_starts_from_the_whole_network(tmp_path: Path, kind: str):
    source = trained.open_encoder(networks.made(kind, tmp_path / "exported"))
    params, model_state = jax.tree.map(jnp.zeros_like, (source.variables["params"], source.variables["model_state"]))
    empty = TrainState(jnp.zeros((), jnp.int32), params, model_state, {}, (params, model_state))
    state, said = transfer.load_weights(empty, source, task=source.config.task)
    for found in (state.params, state.scored[0]):
        jax.tree.map(np.testing.assert_array_equal, found, source.variables["params"])
    assert f"{len(jax.tree.leaves((params, model_state)))} arrays of the network loaded, all of them" in said

    for other in ({**params, "head": jnp.zeros(3)}, {"encoder": params["encoder"]}):  # Another decoder, or head.
        state, said = transfer.load_weights(dataclasses.replace(empty, params=other), source, task=source.config.task)
        jax.tree.map(np.testing.assert_array_equal, state.params["encoder"], source.variables["params"]["encoder"])
        assert not any(
            leaf.any() for name in other if name != "encoder" for leaf in jax.tree.leaves(state.params[name])
        )
        assert "arrays of the encoder loaded" in said


def test_a_link_to_nothing_is_refused_before_anything_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert cli.main(["export", "--model", "encoder", "--out", str(tmp_path / "link")]) == 2
    assert "link is a link to what is not there; remove it" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["link"]
