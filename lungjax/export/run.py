"""`lungjax export`: a trained network as a folder for other people, checked to give the same predictions."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import flax.traverse_util
import jax
import numpy as np

from lungjax import json_files, unfinished
from lungjax.data.context import Context
from lungjax.errors import InputError
from lungjax.evaluation.plots import training_plots
from lungjax.export import model_card, parity, signature
from lungjax.export.signature import Signature
from lungjax.train.logs import METRICS_FILE
from lungjax.train.trained import (
    Trained,
    open_trained,
    write_description,
    write_exported,
    write_orbax,
    write_torchvision,
)

Dtype = Literal["float16", "float32"]
Format = Literal["safetensors", "orbax", "stablehlo", "onnx", "torchvision"]
FORMATS = get_args(Format)

TOLERANCES = {"float32": 1e-4, "float16": 5e-3}
"""The greatest allowed difference from the original, see `lungjax.export.parity.difference`."""
PLATFORMS = ("cpu", "cuda", "tpu")
"""The platforms of a StableHLO export."""


def export(model: Path, out: Path, *, format: Format = "safetensors", dtype: Dtype = "float32") -> Path:
    """Writes the network of `model` to the new folder `out`: in a format, `config.json`, a model card (`README.md`).

    Args:
      model: a run's workdir, whose reports of `lungjax evaluate` go into the card, or an exported folder.
      out: a folder that does not exist or is empty; written under a temporary name, then renamed.
      format: `safetensors`, weights that lungjax opens; `orbax`, weights as an Orbax checkpoint; `stablehlo` and
        `onnx`, the whole network with its preprocessing, which runs without lungjax; `torchvision`, its encoder's
        weights by torchvision's names.
      dtype: of the weights in the file, for safetensors only.

    Returns:
      `out`. The greatest difference of its predictions from the original's is printed and in the card.

    Raises:
      InputError: there is no such model, a report is damaged, `out` is not empty, a package is missing, or the written
        network predicts differently from the original.
    """
    _check(out, format, dtype)
    trained = open_trained(model)
    if format == "torchvision" and Context.of(trained.config).slices:
        raise InputError(
            f"{model}: is shown neighbouring slices (config.data.context), and torchvision's encoder one; export it in "
            "another format."
        )
    validated = _validated(model, trained.step) if trained.is_run and trained.config.task == "pretrain" else {}
    trained = dataclasses.replace(trained, figures=trained.figures | _figures(trained.path) | validated)
    with unfinished.beside(out) as holder:
        temporary = holder / out.name
        temporary.mkdir()
        describe = signature.encoder_signature if format == "torchvision" else signature.network_signature
        given = describe(trained)
        _write(trained, given, temporary, format, dtype)
        inputs = signature.golden_inputs(given)
        expected = signature.run_network(trained, given, inputs)
        difference = parity.difference(_run_exported(trained, given, temporary, format, inputs), expected)
        if difference > TOLERANCES[dtype]:
            raise InputError(
                f"{model}: as {format} in {dtype}, the network's predictions differ by up to {difference:.2g}, "
                f"more than {TOLERANCES[dtype]}" + ("; use --dtype float32." if dtype != "float32" else ".")
            )
        (temporary / "README.md").write_text(
            model_card.card_text(trained, given, format=format, dtype=dtype, difference=difference)
        )
        temporary.replace(out)
    print(f"{out}: exported, see README.md there; its predictions are the model's to within {difference:.1e}")
    return out


def _check(out: Path, format: Format, dtype: Dtype) -> None:
    unfinished.refuse_fixed(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not an empty folder; --out must name a new folder.")
    if dtype != "float32" and format != "safetensors":
        raise InputError(f"--dtype {dtype} is for --format safetensors only; {format} has float32.")
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if format == "onnx" and missing:
        raise InputError(f"--format onnx needs {' and '.join(missing)}: pip install 'lungjax[onnx]'.")


def _figures(model: Path) -> dict[str, Any]:
    """The reports of `lungjax evaluate` in a workdir or in an exported folder, by file name."""
    reports = {}
    for file in sorted(model.glob("evaluation-*.json")):
        try:
            reports[file.name] = json_files.read(file)
        except ValueError as error:
            raise InputError(f"{file} is damaged ({error}); evaluate again, or remove it.") from error
    return reports


def _validated(workdir: Path, step: int) -> dict[str, Any]:
    """The validation figures that a pretraining run, which `lungjax evaluate` does not score, logged at a step."""
    logged = training_plots.series(workdir / METRICS_FILE)
    figures = {
        name.removeprefix("val/"): of_step[step]
        for name, of_step in logged.items()
        if name.startswith("val/") and step in of_step
    }
    return {"validation": figures} if figures else {}


def _write(trained: Trained, given: Signature, folder: Path, format: Format, dtype: Dtype) -> None:
    if format == "safetensors":
        write_exported(trained, folder, dtype=dtype)
        return
    described = {side: [spec.described() for spec in getattr(given, side)] for side in ("inputs", "outputs")}
    write_description(trained, folder, format=format, **described)
    if format == "orbax":
        write_orbax(trained, folder)
    elif format == "torchvision":
        write_torchvision(trained, folder)
    elif format == "stablehlo":
        (folder / "model.stablehlo").write_bytes(stablehlo(trained, given))
    else:
        from lungjax.export import onnx_graph  # Needs the extra.

        function, specs = signature.traceable(trained, given)
        names = [[spec.name for spec in side] for side in (given.inputs, given.outputs)]
        (folder / "model.onnx").write_bytes(onnx_graph.convert(function, specs, *names))


def stablehlo(trained: Trained, given: Signature) -> bytes:
    """The network with its weights, for `jax.export.deserialize`: for a batch of any size on any platform."""
    function, specs = signature.traceable(trained, given)
    return bytes(jax.export.export(function, platforms=PLATFORMS)(*specs).serialize())


def _run_exported(
    trained: Trained, given: Signature, folder: Path, format: Format, inputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The exported network's outputs in a fresh process; for Orbax, ours with the weights read there."""
    if format != "orbax":
        return parity.run_script("lungjax_itself" if format == "safetensors" else format, folder, inputs)
    weights = parity.run_script("orbax", folder, {})
    variables = {"model_state": {}, **flax.traverse_util.unflatten_dict(weights, sep="/")}
    return signature.run_network(dataclasses.replace(trained, variables=variables), given, inputs)
