"""`lungjax export`: a trained network as a folder that can be handed on, checked to give the same answers."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import flax.traverse_util
import jax
import numpy as np

from lungjax.errors import InputError
from lungjax.evaluation.plots import training_plots
from lungjax.export import model_card, parity, signature
from lungjax.export.signature import Signature
from lungjax.train.logs import METRICS_FILE
from lungjax.train.trained import Trained, open_trained, write_exported, write_known, write_orbax, write_torchvision

Dtype = Literal["float16", "float32"]
Format = Literal["safetensors", "orbax", "stablehlo", "onnx", "torchvision"]
FORMATS = get_args(Format)

TOLERANCES = {"float32": 1e-4, "float16": 5e-3}
"""Greatest difference from the original that an export may make, see `lungjax.export.parity.difference`."""
PLATFORMS = ("cpu", "cuda", "tpu")
"""That a StableHLO export runs on."""


def export(model: Path, out: Path, *, format: Format = "safetensors", dtype: Dtype = "float32") -> Path:
    """Writes the network of `model` to the new folder `out`: in a format, `config.json`, a model card (`README.md`).

    Args:
      model: a run's workdir, whose reports of `lungjax evaluate` go into the card, or an exported folder.
      out: must not exist, or be empty; written under a temporary name and renamed.
      format: `safetensors`, weights that lungjax opens; `orbax`, weights as an Orbax checkpoint; `stablehlo` and
        `onnx`, the whole network with its preprocessing, which runs without lungjax; `torchvision`, its encoder's
        weights by torchvision's names.
      dtype: of the weights in the file, for safetensors only.

    Returns:
      `out`; prints the greatest difference of its answers from the original's, which the card has, too.

    Raises:
      InputError: no such model, a damaged report, `out` holds something, a package is missing, or the written network
        answers otherwise than the original.
    """
    _check(out, format, dtype)
    trained = open_trained(model)
    if trained.is_run:
        validated = _validated(model, trained.step) if trained.config.task == "pretrain" else {}
        trained = dataclasses.replace(trained, figures=_figures(model) | validated)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as holder:
        temporary = Path(holder) / out.name
        temporary.mkdir()
        given = signature.encoder(trained) if format == "torchvision" else signature.of(trained)
        _write(trained, given, temporary, format, dtype)
        asked = signature.golden(given)
        found = parity.difference(_ask(trained, given, temporary, format, asked), signature.said(trained, given, asked))
        if found > TOLERANCES[dtype]:
            raise InputError(
                f"{model}: as {format} in {dtype} the network answers otherwise by up to {found:.2g}, more than "
                f"{TOLERANCES[dtype]}" + ("; use --dtype float32." if dtype != "float32" else ".")
            )
        (temporary / "README.md").write_text(
            model_card.text(trained, given, format=format, dtype=dtype, difference=found)
        )
        temporary.replace(out)
    print(f"{out}: exported, see README.md there; its answers are the model's to within {found:.1e}")
    return out


def _check(out: Path, format: Format, dtype: Dtype) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is no empty folder; --out names a new one.")
    if dtype != "float32" and format != "safetensors":
        raise InputError(f"--dtype {dtype} is for --format safetensors; {format} has float32.")
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if format == "onnx" and missing:
        raise InputError(f"--format onnx needs {' and '.join(missing)}: pip install 'lungjax[onnx]'.")


def _figures(workdir: Path) -> dict[str, Any]:
    """The reports of `lungjax evaluate` in a workdir, by file name."""
    found = {}
    for file in sorted(workdir.glob("evaluation-*.json")):
        try:
            found[file.name] = json.loads(file.read_text())
        except ValueError as error:
            raise InputError(f"{file} is damaged ({error}); evaluate again, or remove it.") from error
    return found


def _validated(workdir: Path, step: int) -> dict[str, Any]:
    """What a pretraining run, which `lungjax evaluate` does not score, logged of its val patients at a step."""
    logged = training_plots.series(workdir / METRICS_FILE)
    found = {
        name.removeprefix("val/"): of_step[step]
        for name, of_step in logged.items()
        if name.startswith("val/") and step in of_step
    }
    return {"validation": found} if found else {}


def _write(trained: Trained, given: Signature, folder: Path, format: Format, dtype: Dtype) -> None:
    if format == "safetensors":
        write_exported(trained, folder, dtype=dtype)
        return
    spoken = {side: [one.described() for one in getattr(given, side)] for side in ("inputs", "outputs")}
    write_known(trained, folder, format=format, **spoken)
    if format == "orbax":
        write_orbax(trained, folder)
    elif format == "torchvision":
        write_torchvision(trained, folder)
    elif format == "stablehlo":
        (folder / "model.stablehlo").write_bytes(stablehlo(trained, given))
    else:
        from lungjax.export import onnx_graph  # Needs the extra.

        function, specs = signature.traceable(trained, given)
        names = [[one.name for one in side] for side in (given.inputs, given.outputs)]
        (folder / "model.onnx").write_bytes(onnx_graph.convert(function, specs, *names))


def stablehlo(trained: Trained, given: Signature) -> bytes:
    """The network for `jax.export.deserialize`, its weights in it, for a batch of any size on any platform."""
    function, specs = signature.traceable(trained, given)
    return bytes(jax.export.export(function, platforms=PLATFORMS)(*specs).serialize())


def _ask(
    trained: Trained, given: Signature, folder: Path, format: Format, asked: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What the written network says, in a fresh process; of Orbax's weights, what they make our network say."""
    if format != "orbax":
        return parity.ask("lungjax_itself" if format == "safetensors" else format, folder, asked)
    weights = parity.ask("orbax", folder, {})
    variables = {"model_state": {}, **flax.traverse_util.unflatten_dict(weights, sep="/")}
    return signature.said(dataclasses.replace(trained, variables=variables), given, asked)
