"""JAX's operations in ONNX: functions named after JAX's primitives; they take graph, equation and inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import helper

from lungjax.errors import InputError

SIMPLE = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "max": "Max",
    "min": "Min",
    "abs": "Abs",
    "neg": "Neg",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "tanh": "Tanh",
    "floor": "Floor",
    "logistic": "Sigmoid",
    "stop_gradient": "Identity",
    "and": "And",
    "or": "Or",
    "not": "Not",
    "eq": "Equal",
    "lt": "Less",
    "le": "LessOrEqual",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
}
"""The operations that differ only in name."""

_TO_NCHW, _TO_NHWC, _TO_OIHW = (0, 3, 1, 2), (0, 2, 3, 1), (3, 2, 0, 1)


def _need(known: bool, eqn: Any) -> None:
    if not known:
        raise InputError(f"--format onnx: lungjax's writer does not know this form of {eqn.primitive.name!r}.")


def _axes(*axes: Any) -> np.ndarray:
    return np.array(axes, np.int64)


def stacked(graph: Any, parts: Sequence[Any], *, axis: int) -> Any:
    """Stacks arrays along a new axis."""
    return graph.add("Concat", *(graph.add("Unsqueeze", part, _axes(axis)) for part in parts), axis=axis)


def stack(graph: Any, eqn: Any, *parts: Any) -> Any:
    return stacked(graph, parts, axis=eqn.params["axis"])


def unstack(graph: Any, eqn: Any, x: Any) -> list[Any]:
    axis = eqn.params["axis"]
    return [graph.add("Gather", x, np.array(row), axis=axis) for row in range(len(eqn.outvars))]


def concatenate(graph: Any, eqn: Any, *parts: Any) -> Any:
    return graph.add("Concat", *parts, axis=eqn.params["dimension"])


def ne(graph: Any, eqn: Any, a: Any, b: Any) -> Any:
    return graph.add("Not", graph.add("Equal", a, b))


def rsqrt(graph: Any, eqn: Any, x: Any) -> Any:
    return graph.add("Reciprocal", graph.add("Sqrt", x))


def square(graph: Any, eqn: Any, x: Any) -> Any:
    return graph.add("Mul", x, x)


def rem(graph: Any, eqn: Any, a: Any, b: Any) -> Any:
    return graph.add("Mod", a, b, fmod=1)


def select_n(graph: Any, eqn: Any, which: Any, *cases: Any) -> Any:
    no, yes = cases
    return graph.add("Where", which, yes, no)


def convert_element_type(graph: Any, eqn: Any, x: Any) -> Any:
    return graph.add("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(eqn.params["new_dtype"])))


def transpose(graph: Any, eqn: Any, x: Any) -> Any:
    return graph.add("Transpose", x, perm=eqn.params["permutation"])


def squeeze(graph: Any, eqn: Any, x: Any) -> Any:
    return graph.add("Squeeze", x, _axes(*eqn.params["dimensions"]))


def reshape(graph: Any, eqn: Any, x: Any) -> Any:
    return graph.add("Reshape", x, graph.sizes(eqn.params["new_sizes"]))


def broadcast_in_dim(graph: Any, eqn: Any, x: Any) -> Any:
    shape, given = eqn.params["shape"], eqn.invars[0].aval.shape
    laid = [1] * len(shape)
    for axis, size in zip(eqn.params["broadcast_dimensions"], given, strict=True):
        laid[axis] = size
    x = graph.add("Reshape", x, graph.sizes(laid))
    wanted = [1 if have == size else size for have, size in zip(laid, shape, strict=True)]
    return x if all(size == 1 for size in wanted) else graph.add("Expand", x, graph.sizes(wanted))


def slice(graph: Any, eqn: Any, x: Any) -> Any:
    starts, limits = eqn.params["start_indices"], eqn.params["limit_indices"]
    steps = eqn.params["strides"] or [1] * len(starts)
    sizes = eqn.invars[0].aval.shape
    cut = [axis for axis in range(len(starts)) if (starts[axis], limits[axis], steps[axis]) != (0, sizes[axis], 1)]
    return graph.add(
        "Slice",
        x,
        *(_axes(*(side[a] for a in cut)) for side in (starts, limits)),
        _axes(*cut),
        _axes(*(steps[a] for a in cut)),
    )


def rev(graph: Any, eqn: Any, x: Any) -> Any:
    axes = eqn.params["dimensions"]
    many = len(axes)
    return graph.add("Slice", x, _axes(*[-1] * many), _axes(*[-(2**31)] * many), _axes(*axes), _axes(*[-1] * many))


def reduce_sum(graph: Any, eqn: Any, x: Any) -> Any:
    return graph.add("ReduceSum", x, _axes(*eqn.params["axes"]), keepdims=0)


def reduce_max(graph: Any, eqn: Any, x: Any) -> Any:
    return graph.add("ReduceMax", x, _axes(*eqn.params["axes"]), keepdims=0)


def dot_general(graph: Any, eqn: Any, a: Any, b: Any) -> Any:
    (left, right), batch = eqn.params["dimension_numbers"]
    sides = [x.aval.ndim for x in eqn.invars]
    _need((*left, *right) == (sides[0] - 1, 0), eqn)
    _need((sides[1], *batch) == (2, (), ()), eqn)
    return graph.add("MatMul", a, b)


def conv_general_dilated(graph: Any, eqn: Any, x: Any, kernel: Any) -> Any:
    known = eqn.params
    numbers = known["dimension_numbers"]
    _need((numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) == (_TO_NCHW, _TO_OIHW, _TO_NCHW), eqn)
    _need((known["feature_group_count"], known["lhs_dilation"], known["rhs_dilation"]) == (1, (1, 1), (1, 1)), eqn)
    out = graph.add(
        "Conv",
        graph.add("Transpose", x, perm=_TO_NCHW),
        np.transpose(kernel, _TO_OIHW),
        pads=[pair[side] for side in range(2) for pair in known["padding"]],
        strides=known["window_strides"],
    )
    return graph.add("Transpose", out, perm=_TO_NHWC)


def reduce_window_max(graph: Any, eqn: Any, x: Any) -> Any:
    known = eqn.params
    out = graph.add(
        "MaxPool",
        graph.add("Transpose", x, perm=_TO_NCHW),
        kernel_shape=known["window_dimensions"][1:3],
        pads=[pair[side] for side in range(2) for pair in known["padding"][1:3]],
        strides=known["window_strides"][1:3],
    )
    return graph.add("Transpose", out, perm=_TO_NHWC)


def gather(graph: Any, eqn: Any, x: Any, indices: Any) -> Any:
    """Elements at given positions of each image in a batch; or fixed positions on an axis; or a fixed window."""
    numbers, shape = eqn.params["dimension_numbers"], eqn.invars[0].aval.shape
    axes, sizes = [int(axis) for axis in numbers.start_index_map], eqn.params["slice_sizes"]
    if numbers.operand_batching_dims == numbers.start_indices_batching_dims == (0,):
        _need(axes == list(range(1, len(shape))), eqn)
        at = graph.add("Cast", indices, to=helper.np_dtype_to_tensor_dtype(np.dtype("int64")))
        return graph.add("GatherND", x, at, batch_dims=1)
    _need(not numbers.operand_batching_dims, eqn)
    _need(all(sizes[axis] == size for axis, size in enumerate(shape) if axis not in axes), eqn)
    places = np.moveaxis(indices.astype(np.int64), -1, 0)
    _need(len(axes) == 1 or places.ndim == 1, eqn)
    for axis, place in sorted(zip(axes, places, strict=True), key=lambda pair: -pair[0]):
        _need((place >= 0).all(), eqn)
        _need((place + sizes[axis] <= shape[axis]).all(), eqn)
        if axis in numbers.collapsed_slice_dims:
            x = graph.add("Gather", x, place, axis=axis)
        else:
            x = graph.add("Slice", x, _axes(place), _axes(place + sizes[axis]), _axes(axis))
    return x
