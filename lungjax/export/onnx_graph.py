"""A traced function as an ONNX model: its jaxpr, operation by operation. Needs the extra `lungjax[onnx]`.

Only the operations of our networks are supported. Loops are unrolled; what does not depend on inputs is computed here.

Written here and not by jax2onnx 0.17.1, which is right for the segmenter, the detector and the encoder. For a batch of
any size it cannot write a remainder, which both classifiers need to resample (findings/jax2onnx_rem.sh; "signs
of remainders" in tests/export/test_onnx_graph.py is one); with jax 0.12 it cannot write anything jitted
(findings/jax2onnx_jit.sh); and it demands an Orbax below 0.11.37, where our checkpoints need 0.12.6.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from jax.extend import core
from onnx import TensorProto, helper, numpy_helper

from lungjax.errors import InputError
from lungjax.export import onnx_ops

OPSET, IR = 18, 8
"""Of 2022, so that older runtimes can read the file."""
_CALLS = ("jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call")


def convert(function: Any, specs: Sequence[Any], input_names: Sequence[str], output_names: Sequence[str]) -> bytes:
    """Converts a jitted function of float32 arrays, all with the symbolic batch as first axis, to a serialized model.

    Raises:
      InputError: an operation is not supported.
    """
    closed = function.trace(*specs).jaxpr
    graph = Graph(closed.jaxpr.invars[0].aval.shape[0], input_names[0])
    inputs = [Tensor(name) for name in input_names]
    outputs = graph.run(closed.jaxpr, closed.consts, inputs)
    graph.nodes += [
        helper.make_node("Identity", [graph.name(x)], [name]) for x, name in zip(outputs, output_names, strict=True)
    ]
    made = helper.make_graph(
        graph.nodes,
        "lungjax",
        [_described(name, var.aval) for name, var in zip(input_names, closed.jaxpr.invars, strict=True)],
        [_described(name, aval) for name, aval in zip(output_names, closed.out_avals, strict=True)],
        list(graph.constants.values()),
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _described(name: str, aval: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [_length(size) for size in aval.shape])


def _length(size: Any) -> int | str:
    return int(size) if isinstance(size, (int, np.integer)) else str(size)


class Tensor(str):
    """The name of a value that depends on the inputs; all other values are arrays."""


class Graph:
    """The nodes and constants so far.

    Args:
      batch: the symbolic size.
      batch_input: the name of an input whose first axis is the batch.
    """

    def __init__(self, batch: Any, batch_input: str):
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[Any, onnx.TensorProto] = {}
        self._batch, self._batch_input = batch, batch_input

    def add(self, op: str, *inputs: Any, **attributes: Any) -> Tensor:
        """Adds a node with one output; returns the output."""
        out = Tensor(f"{op}_{len(self.nodes)}")
        self.nodes.append(helper.make_node(op, [self.name(x) for x in inputs], [out], **attributes))
        return out

    def name(self, x: Any) -> str:
        """The name of a tensor or of a constant, which is stored once however often it is used."""
        if isinstance(x, Tensor):
            return x
        array = np.ascontiguousarray(x) if np.ndim(x) else np.asarray(x)
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(array, f"constant_{len(self.constants)}")
        return self.constants[key].name

    def sizes(self, shape: Sequence[Any]) -> Any:
        """A shape, int64: a constant or, where the batch is part of it, computed when the model runs."""
        if all(isinstance(_length(size), int) for size in shape):
            return np.array(shape, np.int64)
        batch = self.add("Gather", self.add("Shape", Tensor(self._batch_input)), np.array([0]), axis=0)
        parts = []
        for size in shape:
            if isinstance(_length(size), int):
                parts.append(np.array([size], np.int64))
                continue
            times = int(size // self._batch) if size != self._batch else 1
            assert size == times * self._batch, f"{size} is not a multiple of the batch"
            parts.append(self.add("Mul", batch, np.array([times], np.int64)))
        return self.add("Concat", *parts, axis=0)

    def run(self, jaxpr: core.Jaxpr, consts: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
        """Adds the operations of a jaxpr; returns its outputs."""
        known: dict[Any, Any] = dict(zip(jaxpr.constvars, map(np.asarray, consts), strict=True))
        known |= zip(jaxpr.invars, inputs, strict=True)

        def value(x: Any) -> Any:
            return np.asarray(x.val, x.aval.dtype) if hasattr(x, "val") else known[x]

        for eqn in _live(jaxpr):
            outputs = self._equation(eqn, [value(x) for x in eqn.invars])
            known |= zip(eqn.outvars, outputs, strict=True)
        return [value(x) for x in jaxpr.outvars]

    def _equation(self, eqn: Any, inputs: list[Any]) -> list[Any]:
        name = eqn.primitive.name
        if name in _CALLS:
            inner = eqn.params.get("jaxpr") or eqn.params["call_jaxpr"]
            return self.run(inner.jaxpr, inner.consts, inputs)
        if name == "scan":
            return self._scan(eqn, inputs)
        if not any(isinstance(x, Tensor) for x in inputs) and _static(eqn.outvars):
            values = eqn.primitive.bind(*inputs, **eqn.params)
            return [np.asarray(x) for x in (values if eqn.primitive.multiple_results else [values])]
        if name in onnx_ops.SIMPLE:
            return [self.add(onnx_ops.SIMPLE[name], *inputs)]
        translate = getattr(onnx_ops, name, None)
        if translate is None:
            raise InputError(f"--format onnx: lungjax's writer does not know the operation {name!r}.")
        outputs = translate(self, eqn, *inputs)
        return outputs if eqn.primitive.multiple_results else [outputs]

    def _scan(self, eqn: Any, inputs: list[Any]) -> list[Any]:
        params = eqn.params
        inner, length = params["jaxpr"], params["length"]
        # The inputs are constants, carried values, and arrays that are looped over. Releases of JAX store their numbers
        # differently (`num_consts`, `ft_in`), but only arrays that are looped over have one axis less inside the loop.
        last = len(inputs) - _looped(eqn.invars, inner.jaxpr.invars)
        first = last - (len(eqn.outvars) - _looped(eqn.outvars, inner.jaxpr.outvars))
        consts, carried, over = inputs[:first], inputs[first:last], inputs[last:]
        rows = []
        for step in range(length)[:: -1 if params["reverse"] else 1]:
            at = [self.add("Gather", x, np.array(step), axis=0) for x in over]
            outputs = self.run(inner.jaxpr, inner.consts, [*consts, *carried, *at])
            carried = outputs[: len(carried)]
            rows.append(outputs[len(carried) :])
        if params["reverse"]:
            rows.reverse()
        return [*carried, *(onnx_ops.stacked(self, row, axis=0) for row in zip(*rows, strict=True))]


def _looped(outside: Sequence[Any], inside: Sequence[Any]) -> int:
    """How many of a loop's inputs, or outputs, have a row for each step."""
    return sum(whole.aval.ndim > row.aval.ndim for whole, row in zip(outside, inside, strict=True))


def _live(jaxpr: core.Jaxpr) -> list[Any]:
    """The equations that an output depends on; predictions that are not exported are left out."""
    needed, live = set(map(id, jaxpr.outvars)), []
    for eqn in reversed(jaxpr.eqns):
        if needed & set(map(id, eqn.outvars)):
            needed |= set(map(id, eqn.invars))
            live.append(eqn)
    return live[::-1]


def _static(variables: Sequence[Any]) -> bool:
    return all(isinstance(_length(size), int) for v in variables for size in v.aval.shape)
