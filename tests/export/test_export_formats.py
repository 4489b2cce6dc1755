"""`lungjax export --format`: networks that run without lungjax, and what holds them to the original's answers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import jax
import jax.export
import networks
import numpy as np
import pytest
import yaml

from lungjax import cli
from lungjax.errors import InputError
from lungjax.export import model_card, parity, signature
from lungjax.export import run as exporting
from lungjax.prediction.nodule_classifier import NoduleClassifier
from lungjax.prediction.sliding_window import Segmenter
from lungjax.tasks import diagnose
from lungjax.train import calibrate, mesh, trained

STANDALONE = ("stablehlo", "onnx")
LIBRARIES = {
    "safetensors": "lungjax",
    "orbax": "lungjax",
    "onnx": "onnx",
    "stablehlo": "jax",
    "torchvision": "torchvision",
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: networks.made(kind, folder / kind) for kind in networks.TASKS}


@pytest.mark.parametrize("format", STANDALONE)
@pytest.mark.parametrize("kind", networks.TASKS)
def test_it_answers_without_lungjax(
    kind: str, format: exporting.Format, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
):
    """The card's very example runs, too; its inputs are of another size of batch than any before."""
    out = tmp_path / "out"
    exporting.export(models[kind], out, format=format)
    difference = float(capsys.readouterr().out.split()[-1])
    assert difference < 2e-5
    text = (out / "README.md").read_text()
    assert f"golden inputs: {difference:.1e} at most" in text
    if kind == "classify":
        _run_example(text, out)
    if format == "stablehlo":
        exported = jax.export.deserialize(bytearray((out / "model.stablehlo").read_bytes()))
        assert exported.platforms == ("cpu", "cuda", "tpu")
        assert f"| loads with | made with jax {jax.__version__} and jaxlib {version('jaxlib')}. JAX promises" in text
    with pytest.raises(InputError, match="to run without lungjax"):
        trained.open_trained(out)


def _run_example(text: str, out: Path) -> None:
    """The card's, in the folder, and whether it gives what `config.json` says, without lungjax."""
    code = text.split("```python\n")[1].split("```")[0]
    known = json.loads((out / "config.json").read_text())
    code += "import sys\nassert 'lungjax' not in sys.modules\n"
    for one in known["outputs"]:
        code += f"assert {one['name']}.shape == {(4, *one['shape'][1:])}\n"
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=out, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_answer_is_what_lungjax_says_elsewhere(models: dict[str, Path]):
    """Of the segmenter and the grader that `predict` uses, calibration and all; of the tasks' own functions else."""
    opened = {kind: trained.open_trained(path) for kind, path in models.items()}
    given = {kind: signature.network_signature(model) for kind, model in opened.items()}
    asked = {kind: signature.golden_inputs(one) for kind, one in given.items()}
    asked["segment"] = {name: np.round(hu) for name, hu in asked["segment"].items()}  # A scan has whole numbers.
    said = {kind: signature.run_network(opened[kind], given[kind], asked[kind]) for kind in models}

    hu = asked["segment"]["3.hu"].astype(np.int16)
    np.testing.assert_allclose(said["segment"]["3.probability"], Segmenter(opened["segment"]).tiles(hu), atol=1e-6)

    grades = NoduleClassifier(opened["classify"]).predict(asked["classify"]["3.hu"], asked["classify"]["3.pixel_mm"])
    np.testing.assert_allclose(said["classify"]["3.probability"], grades.probability, atol=1e-6)
    np.testing.assert_allclose(said["classify"]["3.ratings"], grades.ratings, atol=1e-5)

    model, inside = opened["diagnose"], asked["diagnose"]["3.inside"]
    predicted = _predicted(
        model, {"image": asked["diagnose"]["3.hu"], "spacing_mm": asked["diagnose"]["3.pixel_mm"], "inside": inside}
    )
    wanted = calibrate.probability(predicted["logit"], model.calibration)
    np.testing.assert_allclose(said["diagnose"]["3.probability"], wanted, atol=1e-6)
    assert (said["diagnose"]["3.attention"][inside == 0] == 0).all()
    np.testing.assert_allclose(said["diagnose"]["3.attention"].sum(axis=1), 1, atol=1e-6)
    assert said["simclr"]["3.features"].shape == (3, 64)


def _predicted(model: trained.Trained, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    task = diagnose.make(model.config, intensity="hu", readers=4, mesh=mesh.make_mesh(8))
    return jax.device_get(jax.jit(task.predict)(model.variables["params"], model.variables["model_state"], batch))


@pytest.mark.parametrize(
    ("script", "shut_out"),
    [
        ("stablehlo", ["lungjax"]),
        ("onnx", ["lungjax", "jax", "flax"]),
        ("torchvision", ["lungjax", "jax", "flax"]),
        ("orbax", ["lungjax"]),
    ],
)
def test_what_checks_an_export_cannot_import_lungjax(script: str, shut_out: list[str]):
    """The check would pass on a file that only lungjax can run, else."""
    text = (parity.SCRIPTS / f"{script}.py").read_text()
    before = text.split("import numpy")[0].split("import jax\n")[0]
    tries = "".join(
        f"try:\n    import {name}\nexcept ImportError:\n    print('{name}')\n"
        for name in (*shut_out, "lungjax.ct.scan")
    )
    done = subprocess.run([sys.executable, "-I", "-c", before + tries], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [*shut_out, "lungjax.ct.scan"]


@pytest.mark.parametrize("format", ["orbax", "onnx"])
def test_one_that_answers_otherwise_leaves_nothing(
    format: exporting.Format, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(exporting, "_write", networks.damaging(exporting._write))
    with pytest.raises(InputError, match=f"as {format} in float32, the network's predictions differ"):
        exporting.export(models["simclr"], tmp_path / "out", format=format)
    assert list(tmp_path.iterdir()) == []


def test_one_that_does_not_run_leaves_nothing(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exporting, "stablehlo", lambda *_: b"no program")
    with pytest.raises(InputError, match="cannot be run in a fresh process"):
        exporting.export(models["simclr"], tmp_path / "out", format="stablehlo")
    assert list(tmp_path.iterdir()) == []


def test_differences():
    """Of probabilities as they are, of all else in units of the largest; anything odd is infinite."""
    one = {"3.probability": np.array([0.1, 0.2]), "3.features": np.array([-8.0, 4.0])}
    assert parity.difference(one, one) == 0
    assert parity.difference({**one, "3.probability": np.array([0.1, 0.3])}, one) == pytest.approx(0.1)
    assert parity.difference({**one, "3.features": np.array([-8.0, 5.0])}, one) == pytest.approx(1 / 8)
    assert parity.difference({**one, "3.features": np.array([np.nan, 4.0])}, one) == np.inf
    assert parity.difference({**one, "3.probability": np.zeros(3)}, one) == np.inf
    assert parity.difference({"3.probability": one["3.probability"]}, one) == np.inf


def test_orbax_weights_are_read_without_lungjax_and_with_it(models: dict[str, Path], tmp_path: Path):
    out = exporting.export(models["classify"], tmp_path / "out", format="orbax")
    original = trained.open_trained(models["classify"])
    code = (
        "import pathlib, numpy as np\nfrom orbax.checkpoint import v1 as ocp\n"
        "w = ocp.load(str(pathlib.Path('checkpoint').absolute()))\n"
        "print(repr(float(np.asarray(w['params']['encoder']['stem']['kernel'], np.float64).sum())))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=out, capture_output=True, text=True, check=True)
    assert float(done.stdout) == original.variables["params"]["encoder"]["stem"]["kernel"].astype(np.float64).sum()
    found = trained.open_trained(out)
    jax.tree.map(np.testing.assert_array_equal, found.variables, original.variables)
    assert (found.is_run, found.calibration) == (False, original.calibration)
    shutil.rmtree(out / "checkpoint" / "state")
    with pytest.raises(InputError, match="is damaged"):
        trained.open_trained(out)


def test_cards_begin_as_hugging_face_reads_them(models: dict[str, Path]):
    for kind, path in models.items():
        model = trained.open_trained(path)
        for format in exporting.FORMATS:
            text = model_card.card_text(
                model, signature.network_signature(model), format=format, dtype="float32", difference=0.0
            )
            before, header, body = text.split("---\n", 2)
            known = yaml.safe_load(header)
            assert before == ""
            assert body.startswith("\n# lungjax")
            assert known["license"] == "apache-2.0"
            assert known["library_name"] == LIBRARIES[format]
            assert known["pipeline_tag"].startswith("image-"), kind
            assert {"medical", "ct"} <= set(known["tags"])


def test_what_is_refused(
    models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    command = ["export", "--model", str(models["simclr"]), "--out", str(tmp_path / "out"), "--format"]
    assert cli.main([*command, "onnx", "--dtype", "float16"]) == 2
    assert "--dtype float16 is for --format safetensors" in capsys.readouterr().err
    monkeypatch.setattr(exporting.importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else name)
    assert cli.main([*command, "onnx"]) == 2
    assert "needs onnxruntime: pip install 'lungjax[onnx]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
