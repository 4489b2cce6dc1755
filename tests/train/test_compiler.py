"""A training step is compiled with options that change its speed and nothing else, where they are known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import runs

from lungjax.models.encoder import ResNet
from lungjax.models.unet import UNet
from lungjax.train import compiler, loop, mesh, step


@pytest.fixture
def optimized() -> Iterator[None]:
    """Programs are compiled as users' are, unlike those of other tests."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(autouse=True)
def no_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XLA_FLAGS", raising=False)


def test_gradients_are_equal_but_for_the_order_of_sums(optimized: None):
    options = compiler.train_options(mesh.make_mesh(8))
    assert options is not None, "this jaxlib does not know them"
    network = UNet(encoder=ResNet(depth=10, width=8, stem="patch", patch_px=4), widths=(32, 16, 8))
    image = jax.random.normal(jax.random.key(0), (4, 64, 64, 1))
    params = network.init(jax.random.key(1), image, train=True)["params"]

    def loss(params: Any) -> jax.Array:
        logits: Any = network.apply({"params": params}, image, train=True)
        return (logits**2).mean()

    programs = [jax.jit(jax.value_and_grad(loss), compiler_options=chosen) for chosen in (None, options)]
    texts = [program.lower(params).compile().as_text() for program in programs]
    assert texts[0] != texts[1], "the options changed nothing"
    by_default, by_options = (jax.device_get(program(params)) for program in programs)
    np.testing.assert_allclose(by_options[0], by_default[0], rtol=1e-5)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(by_default[1]))
    for mine, other in zip(jax.tree.leaves(by_options[1]), jax.tree.leaves(by_default[1]), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-5 * largest)


def test_a_jaxlib_that_does_not_know_them_does_without(monkeypatch: pytest.MonkeyPatch):
    for unknown in ({"xla_cpu_of_another_version": "true"}, {compiler._YNN: "LIBRARY_FUSION_TYPE_OF_ANOTHER_VERSION"}):
        monkeypatch.setattr(compiler, "_CPU", unknown)
        assert compiler.train_options(mesh.make_mesh(8)) is None


def test_what_the_user_has_set_holds(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XLA_FLAGS", f"--{compiler._YNN}=dot")
    assert compiler.train_options(mesh.make_mesh(8)) is None


def mesh_of(platform: str) -> Any:
    class Device:
        pass

    device: Any = Device()
    device.platform = platform

    class Devices:
        devices = np.array([device], object)

    return Devices()


def test_other_devices_have_none():
    for platform in ("gpu", "tpu"):
        assert compiler.train_options(mesh_of(platform)) is None
        assert compiler.step_options(mesh_of(platform), deterministic=False) is None


def test_a_gpu_computes_the_same_bits_each_time_where_that_is_asked_for():
    asked = {"xla_gpu_deterministic_ops": "True"}
    for platform in ("gpu", "cuda", "rocm"):
        assert compiler.step_options(mesh_of(platform), deterministic=True) == asked
        assert compiler.train_options(mesh_of(platform), deterministic=True) == asked
    assert compiler._is_known(tuple(asked.items())), "this XLA does not know it"
    for platform in ("cpu", "tpu"):  # They do so anyway.
        assert compiler.step_options(mesh_of(platform), deterministic=True) is None
    devices = mesh.make_mesh(8)
    assert compiler.train_options(devices, deterministic=True) == compiler.train_options(devices)


@pytest.mark.parametrize("deterministic", [False, True])
def test_every_step_of_a_run_is_compiled_as_its_configuration_asks(
    deterministic: bool, slices_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = runs.small_config("simclr", slices_dataset)
    config.steps = config.log_every = config.eval_every = config.checkpoint_every = 2
    config.deterministic = deterministic
    asked: dict[str, list[bool]] = {"train_options": [], "step_options": []}

    def recorded(name: str) -> Any:
        def options(mesh: Any, *, deterministic: bool) -> None:
            asked[name].append(deterministic)

        return options

    for name in asked:
        monkeypatch.setattr(compiler, name, recorded(name))
    for make in (step.make_eval_step, step.make_predict_step, step.make_features_step):
        make.cache_clear()
    assert loop.train_and_evaluate(config, tmp_path / "run")
    assert set(asked["train_options"]) == {deterministic}
    assert asked["step_options"] == [deterministic] * 4, "details, evaluation, prediction, features"
