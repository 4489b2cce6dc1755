"""A ResNet by torchvision's names becomes our encoder, and ours theirs: the same answers on both sides."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
import runs
import safetensors.numpy

from lungjax.errors import InputError
from lungjax.export import parity
from lungjax.export import run as exporting
from lungjax.models.encoder import ResNet
from lungjax.train import loop, torchvision, trained, transfer
from lungjax.train.state import TrainState

ENCODER = {"width": 64, "norm": "batch", "stem": "torchvision"}


@functools.cache
def variables_of(depth: int) -> dict[str, Any]:
    """Random, {"params", "model_state"} as a network has them, the encoder's under `encoder`."""
    encoder = ResNet(depth=depth, **ENCODER)
    shapes = jax.eval_shape(functools.partial(encoder.init, train=False), jax.random.key(0), jnp.zeros((1, 64, 64, 1)))
    rng = np.random.default_rng(depth)
    found = jax.tree.map_with_path(lambda path, x: networks.random(path[-1].key, x.shape, rng), shapes)
    return {
        "params": {"encoder": found["params"]},
        "model_state": {"batch_stats": {"encoder": found["batch_stats"]}},
    }


def features(depth: int, variables: dict[str, Any], images: np.ndarray) -> np.ndarray:
    """Of (batch, height, width)."""
    inner = {
        "params": variables["params"]["encoder"],
        "batch_stats": variables["model_state"]["batch_stats"]["encoder"],
    }

    def pooled(inner: Any, x: jax.Array) -> jax.Array:
        maps: Any = ResNet(depth=depth, **ENCODER).apply(inner, x, train=False)
        return maps[-1].mean(axis=(1, 2))

    return np.asarray(jax.jit(pooled)(inner, images[..., None]))


def as_torchvision(depth: int) -> dict[str, np.ndarray]:
    """With a first convolution on three colours, and the rest of what such a file holds."""
    rng = np.random.default_rng(1)
    tensors = torchvision.from_encoder(variables_of(depth), {"depth": depth, **ENCODER})
    parts = rng.normal(0, 0.1, (64, 2, 7, 7)).astype(np.float32)
    tensors["conv1.weight"] = np.concatenate(
        [parts, tensors["conv1.weight"] - parts.sum(axis=1, keepdims=True)], axis=1
    )
    more = {"fc.weight": np.zeros((1000, 512), np.float32), "bn1.num_batches_tracked": np.array(7)}
    return {name: np.ascontiguousarray(value) for name, value in (tensors | more).items()}


def images_of(seed: int, batch: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, (batch, 96, 64)).astype(np.float32)


@pytest.mark.parametrize("depth", [18, 50])
def test_theirs_becomes_ours(depth: int, tmp_path: Path):
    """Against their forward pass in NumPy, on the grey image in all three colours."""
    file = tmp_path / trained.TORCHVISION_FILE
    file.write_bytes(safetensors.numpy.save(as_torchvision(depth)))
    found = trained.open_encoder(file)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), found.variables, variables_of(depth))
    images = images_of(0)
    colours = np.repeat(images[:, None], 3, axis=1)
    theirs = parity.run_script("torchvision", tmp_path, {"2.image": colours})["2.features"]
    assert parity.difference({"features": features(depth, found.variables, images)}, {"features": theirs}) < 1e-5


@pytest.mark.parametrize("depth", torchvision.DEPTHS)
def test_the_real_torchvision_answers_alike(depth: int):
    """Both ways: their network from our names, and ours from theirs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = pytest.importorskip("torch", reason="no torch (extra `bench`): NumPy stands in for torchvision")
        theirs = pytest.importorskip("torchvision", reason="no torchvision (extra `bench`): NumPy stands in for it")
    network = getattr(theirs.models, f"resnet{depth}")()
    network.fc = torch.nn.Identity()
    tensors = {name: torch.from_numpy(value) for name, value in as_torchvision(depth).items() if "fc" not in name}
    network.load_state_dict(tensors)
    images = images_of(1)
    with torch.no_grad():
        said = network.eval()(torch.from_numpy(images)[:, None].repeat(1, 3, 1, 1)).numpy()
    ours = torchvision.to_encoder({name: value.numpy() for name, value in network.state_dict().items()})
    assert parity.difference({"features": features(depth, ours, images)}, {"features": said}) < 1e-5


def test_an_encoder_goes_out_by_their_names(tmp_path: Path, capsys: pytest.CaptureFixture):
    model = networks.made("simclr", tmp_path / "model", depth=18, **ENCODER)
    out = exporting.export(model, tmp_path / "out", format="torchvision")
    assert float(capsys.readouterr().out.split()[-1]) < 1e-5
    assert "model.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)" in (out / "README.md").read_text()
    back = trained.open_encoder(out / trained.TORCHVISION_FILE).variables
    kept = trained.open_trained(model).variables
    for name in ("params", "model_state"):
        ours = kept[name]["encoder"] if name == "params" else kept[name]["batch_stats"]["encoder"]
        found = back[name]["encoder"] if name == "params" else back[name]["batch_stats"]["encoder"]
        jax.tree.map(np.testing.assert_array_equal, found, ours)


@pytest.mark.parametrize("changed", [{"norm": "group"}, {"stem": "patch"}, {"width": 8}, {"depth": 10}])
def test_one_that_torchvision_lacks_is_refused(changed: dict[str, Any], tmp_path: Path):
    model = networks.made("simclr", tmp_path / "model", **{"depth": 18, **ENCODER, **changed})
    with pytest.raises(InputError, match="torchvision has no such encoder"):
        exporting.export(model, tmp_path / "out", format="torchvision")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_files_of_something_else_are_refused(tmp_path: Path):
    file, tensors = tmp_path / "mine.safetensors", as_torchvision(18)
    for kept, message in (
        ([name for name in tensors if name != "layer3.1.bn2.running_var"], "layer3.1.bn2.running_var is missing"),
        ([name for name in tensors if "layer4.1" not in name], "no tensors of a ResNet of depth 18, 34, 50"),
        (["fc.weight"], "no tensors of a ResNet"),
    ):
        file.write_bytes(safetensors.numpy.save({name: tensors[name] for name in kept}))
        with pytest.raises(InputError, match=message):
            trained.open_encoder(file)
    file.write_bytes(b"no tensors")
    with pytest.raises(InputError, match=str(file)):
        trained.open_encoder(file)
    file.unlink()
    with pytest.raises(InputError, match="No such file"):
        trained.open_encoder(file)


def test_a_run_takes_such_a_file(slices_dataset: Path, tmp_path: Path):
    """`transfer.load` puts it where a network has its encoder; the loop tells one whose encoder is another."""
    file = tmp_path / "resnet18.safetensors"
    file.write_bytes(safetensors.numpy.save(as_torchvision(18)))
    fresh = jax.tree.map(jnp.zeros_like, variables_of(18))
    fresh["params"]["head"] = jnp.ones(3)
    empty = TrainState(jnp.zeros((), jnp.int32), fresh["params"], fresh["model_state"], None, None)
    state, said = transfer.load_weights(empty, trained.open_encoder(file), task="segment")
    wanted = variables_of(18)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=1e-6), state.params["encoder"], wanted["params"]["encoder"]
    )
    jax.tree.map(np.testing.assert_array_equal, state.model_state, wanted["model_state"])
    np.testing.assert_array_equal(state.params["head"], np.ones(3))
    assert "100 arrays of the encoder loaded, 1 others start from random weights" in said

    config = runs.small_config("segment", slices_dataset)
    config.init_from = str(file)
    with pytest.raises(InputError, match=r"resnet18.safetensors: .*give both runs the same config.model.encoder"):
        loop.train_and_evaluate(config, tmp_path / "run")
