"""A training step is compiled with options that change its speed and nothing else, where they are known."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from lungjax.models.encoder import ResNet
from lungjax.models.unet import UNet
from lungjax.train import compiler, mesh


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


def test_other_devices_have_none():
    class Gpu:
        platform = "gpu"

    class Gpus:
        devices = np.array([Gpu()], object)

    gpus: Any = Gpus()
    assert compiler.train_options(gpus) is None
