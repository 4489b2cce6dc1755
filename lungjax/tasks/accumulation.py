"""Gradient accumulation: a batch goes through a network part by part, with the gradient of the whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lungjax.errors import InputError
from lungjax.tasks.task import Config

Network = Callable[..., tuple[Any, Any]]
"""(params, model_state, key, *inputs) -> (outputs, model_state) of a training step. Inputs are (batch, ...), outputs
(batch * k, ...) with any k; the key is for dropout."""


def training(model: Any, config: Config, mesh: Mesh) -> Network:
    """A Flax module's function of a training step, as `accumulated` makes it."""

    def network(params: Any, model_state: Any, key: jax.Array, *inputs: jax.Array) -> tuple[Any, Any]:
        variables = {"params": params, **model_state}
        return model.apply(variables, *inputs, train=True, rngs={"dropout": key}, mutable=list(model_state))

    return accumulated(network, config, mesh)


def check(config: Config, *, devices: int) -> None:
    """Raises InputError where a batch cannot go through the network of `config` in parts on so many devices."""
    parts, batch_size = config.get("accumulate", 1), config.data.batch_size
    if parts > 1 and batch_size % (parts * devices):
        raise InputError(
            f"config.data.batch_size {batch_size} is not a multiple of config.accumulate {parts} times the {devices} "
            "devices; change one of them."
        )
    if parts > 1 and config.model.encoder.norm == "batch":
        raise InputError(
            f"config.accumulate is {parts}, but BatchNorm's statistics are of the whole batch; set "
            "config.model.encoder.norm='group', or config.accumulate=1."
        )


def accumulated(network: Network, config: Config, mesh: Mesh) -> Network:
    """The same function with the same gradient, in less memory where `config.accumulate` is above 1.

    Where `config.accumulate` is N, the batch goes through the network in N parts, one after the other, and their
    outputs are joined; the loss is that of the whole batch, whatever it is of: Dice of all pixels, or NT-Xent with all
    slices as negatives. The backward pass takes part after part again, computes its activations once more, and adds up
    the gradients (GradCache: Gao et al. 2021). Only the outputs and one part's activations are in memory.
    """
    parts = config.get("accumulate", 1)
    if parts == 1:
        return network
    again = jax.checkpoint(network)

    def in_parts(params: Any, model_state: Any, key: jax.Array, *inputs: jax.Array) -> tuple[Any, Any]:
        size = inputs[0].shape[0] // parts

        def of_part(part: tuple[jax.Array, tuple[jax.Array, ...]]) -> Any:
            key, inputs = part
            return again(params, model_state, key, *inputs)[0]

        outputs = jax.lax.map(of_part, (jax.random.split(key, parts), jax.tree.map(_divide, inputs)))
        return jax.tree.map(lambda output: _join(output, size), outputs), model_state

    def _divide(whole: jax.Array) -> jax.Array:
        """(batch, ...) -> (parts, batch / parts, ...): every device divides what it has."""
        divided = whole.reshape(-1, parts, *whole.shape[1:]).swapaxes(0, 1)
        return jax.lax.with_sharding_constraint(divided, NamedSharding(mesh, PartitionSpec(None, mesh.axis_names[0])))

    def _join(divided: jax.Array, size: int) -> jax.Array:
        """(parts, size * k, ...) -> (parts * size * k, ...), in the order of the batch."""
        return divided.reshape(parts, size, -1, *divided.shape[2:]).swapaxes(0, 1).reshape(-1, *divided.shape[2:])

    return in_parts
