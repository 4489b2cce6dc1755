"""Networks that were exported to run without lungjax, StableHLO and ONNX, opened by lungjax all the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

from lungjax import json_files
from lungjax.errors import InputError
from lungjax.prediction.arrays import Forward
from lungjax.train.trained import MODEL_FILE, ONNX_FILE, STABLEHLO_FILE

UNWANTED = re.compile(r"custom_call(?! @shape_assertion\()|\b(?:infeed|outfeed|send|recv)\b")
"""What reaches out of a program, in StableHLO's text: functions of the process, by name and with arguments of the
program's choice, and channels of the host. Networks compute; they only assert the size of a batch."""


def is_standalone(path: Path) -> bool:
    """Whether a folder holds a network with its preprocessing, as StableHLO or ONNX."""
    return any((path / name).is_file() for name in (STABLEHLO_FILE, ONNX_FILE))


def open_forward(path: Path, *, device: Any) -> Forward:
    """The network of a folder for which `is_standalone` is true; it checks the shapes that it is given.

    Args:
      path: the folder.
      device: of JAX, where StableHLO runs; ONNX Runtime runs on the CPU.

    Raises:
      InputError: a damaged file, one of a jax too old or too new, one that would do more than compute, or ONNX Runtime
        is not installed.
    """
    try:
        inputs = json_files.read(path / MODEL_FILE)["inputs"]
        shapes = {array["name"]: tuple(array["shape"][1:]) for array in inputs}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is no exported model or is damaged ({error}); export it again.") from error
    function = _stablehlo(path, device) if (path / STABLEHLO_FILE).is_file() else _onnx(path, list(shapes))

    def forward(*arrays: np.ndarray) -> list[np.ndarray]:
        for array, (name, shape) in zip(arrays, shapes.items(), strict=True):
            if array.shape[1:] != shape:
                wanted = " x ".join(map(str, shape))
                raise InputError(f"{path} was exported for {name} of {wanted} each, and is given {array.shape[1:]}.")
        return function(*(array.astype(np.float32) for array in arrays))

    return forward


def _stablehlo(path: Path, device: Any) -> Any:
    try:
        exported = jax.export.deserialize(bytearray((path / STABLEHLO_FILE).read_bytes()))
        program = exported.mlir_module()
    except Exception as error:  # JAX raises whatever a foreign file happens to provoke.
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: jax {jax.__version__} cannot open {STABLEHLO_FILE} ({why}); export the model again."
        ) from error
    if unwanted := UNWANTED.search(program):
        line = program[program.rfind("\n", 0, unwanted.start()) + 1 :].partition("\n")[0].strip()
        raise InputError(
            f"{path}: {STABLEHLO_FILE} does more than compute ({line[:80]}), which no network of lungjax does; "
            "do not use it."
        )
    call = jax.jit(exported.call)
    return lambda *arrays: [np.asarray(output) for output in call(*jax.device_put(arrays, device))]


def _onnx(path: Path, names: list[str]) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f"{path}: to open it, ONNX Runtime is needed: pip install 'lungjax[onnx]'.") from error
    try:
        session = onnxruntime.InferenceSession(path / ONNX_FILE, providers=["CPUExecutionProvider"])
    except Exception as error:  # Its own exceptions have no common class.
        raise InputError(f"{path}: ONNX Runtime cannot open {ONNX_FILE} ({error}); export the model again.") from error
    return lambda *arrays: session.run(None, dict(zip(names, arrays, strict=True)))
