"""The section "Use" of every model card runs as it stands, and gives what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
import runs

from lungjax.export import model_card, signature
from lungjax.export import run as exporting
from lungjax.train import trained

OUTPUTS = {
    "segment": {"probability"},
    "pretrain": {"features"},
    "sift": {"probability"},
    "classify": {"probability", "ratings"},
    "diagnose": {"probability", "attention"},
}
"""Names that a snippet gives to what is predicted, by the task."""


def snippets(card: str) -> list[str]:
    section = card.split("\n## Use\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def execute(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the names of a snippet stand for, once it has run in a folder."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def check(names: dict[str, Any], task: str) -> None:
    for output in OUTPUTS[task]:
        assert len(names[output]) == 4
        assert np.isfinite(names[output]).all()
        assert names[output].shape[1:] or (names[output] > 0).all()


@pytest.mark.parametrize("name", trained.bundled_models())
def test_a_bundled_models_snippet_runs_anywhere(name: str, tmp_path: Path):
    """In a fresh process, as its reader would run it."""
    model = trained.open_trained(Path(name))
    (code,) = snippets((model.path / "README.md").read_text())
    assert f'lungjax.load("{name}")' in code
    for output in sorted(OUTPUTS[model.config.task]):
        code += f"\nassert len({output}) == 4 and np.isfinite({output}).all(), {output}"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", trained.bundled_models())
def test_a_bundled_card_is_that_of_the_template(name: str):
    """But for its figures, and what was known when it was exported."""
    model = trained.open_trained(Path(name))
    card = (model.path / "README.md").read_text()
    given = signature.network_signature(model)
    made = model_card.card_text(model, given, format="safetensors", dtype="float16", difference=0.0)
    section = f"\n## Use\n\n{model_card.use_section(model, given, format='safetensors', where=name)}\n## "
    assert section in card
    parts = [text.split("\n## Use\n")[0].split("| | |")[0] for text in (card, made)]
    parts += [text[text.index("\n## Figures\n") :] for text in (card, made)]
    assert parts[0] == parts[1]
    assert parts[2] == parts[3]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: networks.made(kind, folder / kind) for kind in networks.TASKS}


@pytest.mark.parametrize("format", ["safetensors", "orbax", "stablehlo", "onnx"])
def test_the_snippets_of_a_fresh_export_run(
    format: exporting.Format, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = exporting.export(models["segment"], tmp_path / "out", format=format)
    every = snippets((out / "README.md").read_text())
    assert len(every) == (1 if format == "safetensors" else 2)
    for code in every:
        names = execute(code, out, monkeypatch)
        if "weights" in names:  # Those of Orbax.
            assert names["weights"]["params"]["encoder"]
        else:
            check(names, "segment")
    assert sum("import lungjax" in code for code in every) == 1


@pytest.mark.parametrize("kind", ["simclr", "classify", "diagnose"])
def test_the_snippet_of_every_task_runs(kind: str, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    model = trained.open_trained(models[kind])
    card = model_card.card_text(
        model, signature.network_signature(model), format="safetensors", dtype="float32", difference=0.0
    )
    (code,) = snippets(card)
    check(execute(code, models[kind], monkeypatch), model.config.task)


@pytest.mark.parametrize("library", ["torchvision", "lungjax"])
def test_the_snippets_of_an_encoder_for_torchvision_run(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    encoder = {"depth": 18, "width": 64, "norm": "batch", "stem": "torchvision"}
    out = exporting.export(
        networks.made("simclr", tmp_path / "model", **encoder), tmp_path / "out", format="torchvision"
    )
    codes = snippets((out / "README.md").read_text())
    (code,) = [code for code in codes if f"import {library}" in code or f", {library}\n" in code]
    if library == "torchvision":
        for package in ("torch", "torchvision"):
            pytest.importorskip(package, reason=f"no {package} (extra `bench`): the snippet for it is not run")
    names = execute(code, out, monkeypatch)
    assert tuple(names["features"].shape) == (4, 512)


def test_until_when_the_locked_jaxlib_promises_to_load_is_known():
    locked = re.search(r"^jaxlib==(\S+)", (runs.ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked is not None
    assert locked[1] in model_card._UNTIL  # pyright: ignore[reportPrivateUsage]
