"""A model folder from a stranger is opened or refused by one sentence: it runs nothing, and takes no memory."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import networks
import numpy as np
import onnx
import onnx.helper
import pytest
import safetensors.numpy
import strange_files
from hostile import opened_files, peak_mib
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strange_files import refusal

from lungjax.errors import InputError
from lungjax.prediction import exported, opening
from lungjax.train import config_checks, trained

SOME = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
MANY = settings(SOME, max_examples=1000, derandomize=False)
KINDS = ("segment", "classify", "diagnose", "sift", "simclr")
STRANGE = st.one_of(
    st.sampled_from([None, True, -1, 0, 1, 3, 2**31, 2**64, 10**30, 0.5, -0.5, 1e308, float("nan"), float("inf")]),
    st.sampled_from(["", "x", "None", "segment", "float16", "../../etc/passwd", [], {}, [1] * 1000, [[1]], {"a": 1}]),
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for kind in KINDS:
        networks.made(kind, folder / kind, width=2)
    return folder


@pytest.fixture
def model(models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(models / "segment", tmp_path / "model"))


def describe(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes what `config.json` says, as somebody who writes its seal anew, or none."""
    file = folder / trained.MODEL_FILE
    description = json.loads(file.read_text())
    description.pop("sha256", None)
    description.pop("weights_sha256", None)
    change(description)
    file.write_text(json.dumps(description))


def places(description: Any, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every key in an object, by its path."""
    if not isinstance(description, dict):
        return []
    own = [(*before, name) for name in description]
    return own + [place for path in own for place in places(description[path[-1]], path)]


def replace(description: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    *parents, last = place
    for name in parents:
        description = description[name]
    description[last] = value


def fuzz_descriptions(models: Path, tmp_path: Path, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    folder = tmp_path / kind
    shutil.copytree(models / kind, folder, dirs_exist_ok=True)
    description = json.loads((folder / trained.MODEL_FILE).read_text())
    known = places({name: description[name] for name in description if "sha256" not in name})
    place, value = data.draw(st.sampled_from(known)), data.draw(STRANGE)
    drop = data.draw(st.booleans()) and data.draw(st.booleans())

    def change(said: dict[str, Any]) -> None:
        replace(said, place, value)
        if drop:
            parent = said
            for name in place[:-1]:
                parent = parent[name]
            del parent[place[-1]]

    describe(folder, change)
    with opened_files() as opened:
        refusal(lambda: opening.open_model(folder))
    assert [path for path in opened if path.startswith(str(tmp_path)) and not path.startswith(str(folder))] == []


@SOME
@given(data=st.data())
def test_any_description_is_opened_or_refused(models: Path, tmp_path: Path, data: st.DataObject):
    fuzz_descriptions(models, tmp_path, data)


@pytest.mark.exhaustive
@MANY
@given(data=st.data())
def test_any_description_is_opened_or_refused_many_times(models: Path, tmp_path: Path, data: st.DataObject):
    fuzz_descriptions(models, tmp_path, data)


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (("config", "model", "encoder", "width"), 10**9, "model.encoder.width is 1000000000"),
        (("config", "model", "encoder", "width"), 16000, "params/"),
        (("config", "model", "encoder", "depth"), 10**6, "config.model.encoder.depth is 1000000"),
        (("config", "model", "encoder", "depth"), 12, "config describes no network"),
        (("config", "model", "encoder", "patch_px"), 10**6, "model.encoder.patch_px is 1000000"),
        (("config", "model", "decoder"), [8] * 10**5, "config.model.decoder has 100000 values"),
        (("config", "data", "crop_px"), 10**9, "config.data.crop_px is 1000000000"),
        (("config", "task"), "os.system", "config.task is none of"),
        (("seen",), {"side_px": 10**9}, "seen.side_px"),
        (("calibration",), {"slope": "1"}, "calibration.slope"),
        (("operating_points",), {"threshold": [0.5]}, "operating_points"),
        (("patients",), {"A": "everything"}, "patients"),
        (("step",), 1.5, "step"),
        (("intensity",), "raw", "intensity"),
    ],
)
def test_what_asks_for_too_much_or_is_wrong_is_refused(model: Path, place: tuple[str, ...], value: Any, problem: str):
    describe(model, lambda description: replace(description, place, value))

    def refused() -> None:
        with pytest.raises(InputError, match=problem.replace(".", r"\.")):
            opening.open_model(model)

    assert peak_mib(refused) < 200


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.workdir("sift", tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (("split.json", "patients"), ["A"], "split.json is damaged (patients is no object)"),
        (("split.json", "patients", "LIDC-IDRI-0001"), "both", "split.json is damaged (patients has another split)"),
        (("split.json", "digest"), None, "split.json is damaged (digest is no text)"),
        (("split.json", "data"), 1, "split.json is damaged (data is no object)"),
        (("split.json", "intensity"), "raw", "is no run of lungjax, or is damaged (intensity is unknown)"),
        (("split.json", "seen"), {"side_px": 10**9}, "is no run of lungjax, or is damaged (seen.side_px"),
        (("config.json", "a.b"), 1, "config.json is damaged ("),
        (("config.json", "__class__"), 1, "config.json is damaged ("),
        (("config.json", "patch", "window_hu"), 3, "config.patch.window_hu is not two numbers"),
        (("config.json", "model", "encoder", "width"), 10**9, "model.encoder.width is 1000000000"),
        (("config.json", "model", "encoder", "width"), 16, "but by config it is"),
    ],
)
def test_a_run_from_a_stranger_is_refused_like_a_model(
    run: Path, tmp_path: Path, place: tuple[str, ...], value: Any, problem: str
):
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    files = strange_files.files_of_run(copy)
    assert refusal(lambda: strange_files.read_run(copy, files)) == ""
    replace(files, place, value)
    assert problem in refusal(lambda: strange_files.read_run(copy, files))


def test_headers_of_weights_that_ask_for_too_much(model: Path):
    """A file of 4 TB that takes no room on the disk, as its header says."""
    tensors = safetensors.numpy.load_file(model / trained.WEIGHTS_FILE)
    name = next(iter(tensors))
    count = 10**12
    header = json.dumps({name: {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}).encode()
    with (model / trained.WEIGHTS_FILE).open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        os.truncate(file.fileno(), 8 + len(header) + 4 * count)
    describe(model, lambda description: None)

    def refused() -> None:
        with pytest.raises(InputError, match="is not an exported model, or is damaged"):
            trained.open_trained(model)

    assert peak_mib(refused) < 200


@pytest.mark.parametrize("size", [0, 7, 8, 9, 100])
def test_headers_of_weights_that_lie(model: Path, size: int):
    whole = (model / trained.WEIGHTS_FILE).read_bytes()
    describe(model, lambda description: None)
    for content in (whole[:size], b"\xff" * 8 + whole[8:], (2**40).to_bytes(8, "little") + whole[8:], whole + b"more"):
        (model / trained.WEIGHTS_FILE).write_bytes(content)
        with pytest.raises(InputError, match="is not an exported model, or is damaged"):
            trained.open_trained(model)


def test_weights_of_another_network_are_refused_by_their_name(model: Path):
    tensors = safetensors.numpy.load_file(model / trained.WEIGHTS_FILE)
    tensors["params/head/bias"] = np.zeros(7, np.float32)
    safetensors.numpy.save_file(tensors, model / trained.WEIGHTS_FILE)
    describe(model, lambda description: None)
    with pytest.raises(InputError, match=r"params/head/bias is \(7,\), but by config it is \(\d+,\)"):
        trained.open_trained(model)


@pytest.mark.parametrize("place", ["../secret.bin", "{folder}/secret.bin"])
def test_an_onnx_file_that_points_outside_its_folder_is_refused(model: Path, tmp_path: Path, place: str):
    """By ONNX Runtime itself, which this test holds it to."""
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[4])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=place.format(folder=tmp_path))
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 4]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [tensor])
    opset = onnx.helper.make_opsetid("", 17)
    content = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
    (model / trained.WEIGHTS_FILE).unlink()
    (model / trained.ONNX_FILE).write_bytes(content)
    describe(model, lambda description: description.update(inputs=[{"name": "x", "shape": ["batch", 4]}], outputs=[]))
    with pytest.raises(InputError, match=r"ONNX Runtime cannot open model\.onnx"):
        opening.open_model(model)


def test_a_program_that_calls_anything_of_the_process_is_refused(model: Path):
    """Here LAPACK's Cholesky, which is harmless; a call's name and arguments are up to whoever wrote the file."""
    shape = jax.ShapeDtypeStruct(jax.export.symbolic_shape("batch, 3, 3"), np.float32)
    (model / trained.WEIGHTS_FILE).unlink()
    describe(model, lambda description: description.update(inputs=[{"name": "x", "shape": ["batch", 3, 3]}]))
    for function, refused in ((lambda x: jnp.linalg.cholesky(x @ x.mT), True), (lambda x: x @ x.mT, False)):
        program = jax.export.export(jax.jit(function), platforms=["cpu"])(shape)
        (model / trained.STABLEHLO_FILE).write_bytes(program.serialize())
        said = refusal(lambda: exported.open_forward(model, device=jax.devices("cpu")[0]))
        assert ("does more than compute (" in said and "lapack_spotrf" in said) if refused else said == ""


@pytest.mark.parametrize(
    ("line", "unwanted"),
    [
        ("stablehlo.custom_call @shape_assertion(%1)", False),
        ('"stablehlo.custom_call"(%1) <{call_target_name = "other"}>', True),
        ('stablehlo.custom_call @"shape_assertion(other"(%1)', True),
        ("stablehlo.custom_call @shape_assertion_2(%1)", True),
        ('"stablehlo.outfeed"(%1, %2)', True),
        ("%3 = stablehlo.add %1, %2 : tensor<2xf32>", False),
    ],
)
def test_what_does_more_than_compute(line: str, unwanted: bool):
    assert bool(exported.UNWANTED.search(line)) == unwanted


@pytest.mark.parametrize("text", ["[" * 10**5, "", "null", "[]", '{"schema": 1}', "{" + "9" * 10**5 + "}", "\ud800"])
def test_descriptions_that_are_none(model: Path, text: str):
    (model / trained.MODEL_FILE).write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(InputError, match="is not an exported model, or is damaged"):
        trained.open_trained(model)


def test_all_bundled_models_would_be_opened_from_a_stranger_too(tmp_path: Path):
    for name in trained.bundled_models():
        copy = shutil.copytree(trained.SHIPPED / name, tmp_path / name)
        assert dict(config_checks.leaves(trained.open_trained(copy).config.to_dict()))
